"""Sidecars that decide by themselves while what carries their records breaks under load: policyd, agent, Envoy.

What callers were answered is compared with the journal by the decisions' ids: each is on record, or the gap is.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from bench.processes import processes
from proxy.decided import CRASHED, KILLED
from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.terminal import stopped, wait_until
from tests.e2e.test_local import LOCAL, PATIENCE, agent_of, decisions, declare_shop, said, server_of

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("local-broken")]

FLUSH = 1.5  # seconds: what an Envoy, or a busy machine, takes to tell what it decided


@pytest.fixture(scope="module")
def mesh(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A service whose sidecar decides, and who asks it."""
    directory = tmp_path_factory.mktemp("broken") / "mesh"
    declare_shop(directory, root, LOCAL.replace("100", "0"))
    try:
        yield up(directory)
    finally:
        down(directory)


class Load:
    """Callers that are refused without a pause; `answers` are decisions' ids, as refusals tell them, with when."""

    def __init__(self, mesh: RunningMesh) -> None:
        self.answers: dict[str, float] = {}
        self.query = ""
        self.others: Counter[int] = Counter()  # statuses that are no decision, 0 for none
        self._mesh = mesh
        self._stop = threading.Event()

    def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(httpx.HTTPError), self._mesh.client("web-v1", patient=False) as web:
                while not self._stop.is_set():
                    self._ask(web)

    def _ask(self, web: httpx.Client) -> None:
        try:
            answer = web.get(f"http://shop/open/admin{self.query}")
        except httpx.HTTPError:
            self.others[0] += 1
            time.sleep(0.02)
            raise
        if answer.status_code == 403:
            self.answers[answer.headers["x-policyd-decision-id"]] = time.monotonic()
        else:
            self.others[answer.status_code] += 1

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._run) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            self.go_on(100)
            yield
            self.go_on(100)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(PATIENCE)

    def go_on(self, more: int) -> None:
        """Until so many more are answered."""
        wanted = len(self.answers) + more
        wait_until(lambda: len(self.answers) >= wanted, PATIENCE, lambda: str(self.others))


def recorded(mesh: RunningMesh) -> set[str]:
    return {str(one["decision_id"]) for one in decisions(mesh)}


def gaps(mesh: RunningMesh) -> Counter[str]:
    """How many decisions are said to be missing, by why; 0 where nobody knows how many."""
    found: Counter[str] = Counter()
    for one in said(mesh, "local.gap"):
        found[one["detail"]["reason"]] += one["detail"]["lost"]
    return found


def envoy_of(mesh: RunningMesh) -> int:
    """The process of the shop's Envoy."""
    facts = json.loads((mesh.directory / ".policyd" / "server.json").read_text())
    folder = Path(facts["admin_socket"]).parent / "agent" / "shop-v1"
    [envoy] = [pid for pid, command in processes(str(folder)).items() if "launch" not in command]
    return envoy


def killed_under_load(mesh: RunningMesh, pid: int) -> set[str]:
    """Kill a process and go on until there are answers again; the ids of those that were not of its last moment."""
    load = Load(mesh)
    with load.running():
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: max(load.answers.values()) > killed + FLUSH, PATIENCE, lambda: str(load.others))
    return {id_ for id_, when in load.answers.items() if not killed - FLUSH < when < killed + FLUSH}


def test_policyd_that_is_killed_has_all_that_was_decided_when_it_is_back(mesh: RunningMesh) -> None:
    load = Load(mesh)
    with load.running():
        killed = server_of(mesh)
        os.kill(killed, signal.SIGKILL)
        load.go_on(100)
        wait_until(lambda: server_of(mesh) != killed, PATIENCE)

    assert load.others == {}  # no caller has noticed
    wait_until(lambda: recorded(mesh) >= load.answers.keys(), PATIENCE)
    assert gaps(mesh) == {}


def test_an_agent_that_stands_still_under_load_loses_nothing(mesh: RunningMesh) -> None:
    load = Load(mesh)
    with load.running():
        with stopped(agent_of(mesh)):  # more is decided than fits between the two
            load.query = "?" + "x" * 48_000
            load.go_on(60)
        load.query = ""
        load.go_on(100)

    assert load.others == {}
    wait_until(lambda: recorded(mesh) >= load.answers.keys(), PATIENCE)
    assert gaps(mesh) == {}


def test_an_envoy_that_is_killed_under_load_has_told_all_but_its_last_moment(mesh: RunningMesh) -> None:
    sure = killed_under_load(mesh, envoy_of(mesh))

    wait_until(lambda: recorded(mesh) >= sure, PATIENCE)
    wait_until(lambda: gaps(mesh) == {CRASHED: 0}, PATIENCE, lambda: str(gaps(mesh)))


def test_an_agent_that_ends_in_order_under_load_has_all_that_its_envoys_decided(mesh: RunningMesh) -> None:
    before, load = gaps(mesh), Load(mesh)
    with load.running():
        agent, ended = agent_of(mesh), time.monotonic()
        os.kill(agent, signal.SIGTERM)
        wait_until(lambda: max(load.answers.values()) > ended + FLUSH, PATIENCE, lambda: str(load.others))

    wait_until(lambda: recorded(mesh) >= load.answers.keys(), PATIENCE)
    assert gaps(mesh) == before


def test_of_an_agent_that_is_killed_with_its_envoys_the_gap_is_on_record_and_nothing_else_is_missing(
    mesh: RunningMesh,
) -> None:
    sure = killed_under_load(mesh, agent_of(mesh))

    wait_until(lambda: recorded(mesh) >= sure, PATIENCE)
    wait_until(lambda: KILLED in gaps(mesh), PATIENCE, lambda: str(gaps(mesh)))
    assert [one["detail"]["instance"] for one in said(mesh, "local.gap") if one["detail"]["reason"] == KILLED] == [
        "shop-v1"
    ]
