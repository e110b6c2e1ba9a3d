"""Several decision processes behind real Envoys: one revision, none of them missed, and nothing lost with one."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import PROGRAM, RunningMesh, copy_of_bookinfo, down, up
from tests.e2e.terminal import wait_until
from tests.e2e.wire import records
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.alone]  # a check that waits for a second on a busy machine is 503

CLIENTS = 4
ALLOWED = "/productpage"
DENIED = "http://details:9080/details/0"  # for reviews
EXTRA = """@id("extra")
permit (principal, action == Action::"GET", resource) when { context.request.path == "/x" };
"""
IDS = "x-policyd-decision-id"


@pytest.fixture(scope="module")
def several(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """Bookinfo with two decision processes."""
    directory = copy_of_bookinfo(tmp_path_factory.mktemp("deciders") / "bookinfo", root)
    (directory / "policyd.yaml").write_text("workers: 2\n")
    try:
        yield up(directory)
    finally:
        down(directory)


def deciders(mesh: RunningMesh) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = mesh.status()["deciders"]
    return found


class Load:
    """Asks by turns at the gateway for what is allowed, and inside for what is denied, until told to stop."""

    def __init__(self, mesh: RunningMesh) -> None:
        self.seen: Counter[tuple[str, int]] = Counter()
        self.ids: list[str] = []
        self._mesh, self._gateway = mesh, mesh.gateway
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    @property
    def asked(self) -> int:
        return sum(self.seen.values())

    def _ask(self) -> None:
        edge = httpx.Client(base_url=self._gateway, trust_env=False, timeout=20)
        with edge, self._mesh.client("reviews-v1", patient=False) as inside:
            while not self._stop.is_set():
                for client, target in ((edge, ALLOWED), (inside, DENIED)):
                    reply = client.get(target)
                    self.seen[target, reply.status_code] += 1
                    self.ids += reply.headers.get_list(IDS)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.asked > 20, 30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_all_decide_under_the_revision_in_force_and_share_the_work(several: RunningMesh) -> None:
    with Load(several) as load:
        wait_until(lambda: load.asked > 200, 60)

    revision = several.status()["revision"]
    assert [(one["state"], one["revision"]) for one in deciders(several)] == [("deciding", revision)] * 2
    decisions = [record for record in records(several.directory) if record["kind"] == "decision"]
    writers = {record["writer"].rpartition("-")[0] for record in decisions}
    assert writers == {"decide-1", "decide-2"}  # and "decide-1b" by turns, once they were replaced


def test_a_restart_replaces_them_one_at_a_time_without_a_failed_request(several: RunningMesh) -> None:
    before = deciders(several)
    with Load(several) as load:
        done = subprocess.run(
            [PROGRAM, "restart", "--dir", str(several.directory)], capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stderr
        after = deciders(several)
        asked = load.asked
        wait_until(lambda: load.asked > asked + 50, 60)

    assert set(load.seen) == {(ALLOWED, 200), (DENIED, 403)}, load.seen
    assert {one["pid"] for one in before}.isdisjoint(one["pid"] for one in after)
    assert [(one["name"], one["address"], one["state"]) for one in after] == [
        (one["name"], one["address"], "deciding") for one in before
    ]
    assert not [one["pid"] for one in before if Path(f"/proc/{one['pid']}").exists()]


def test_a_process_that_is_killed_is_replaced_and_nothing_is_allowed_or_lost_by_it(several: RunningMesh) -> None:
    victim, other = deciders(several)
    with Load(several) as load:
        for _ in range(3):
            os.kill(victim["pid"], signal.SIGKILL)
            wait_until(lambda gone=victim["pid"]: deciders(several)[0]["pid"] not in (0, gone), 30)
            wait_until(lambda: all(one["state"] == "deciding" for one in deciders(several)), 30)
            victim = deciders(several)[0]
            asked = load.asked
            wait_until(lambda asked=asked: load.asked > asked + 50, 60)

    assert set(load.seen) == {(ALLOWED, 200), (DENIED, 403)}, load.seen
    assert deciders(several)[1]["pid"] == other["pid"]
    kept = {record.get("decision_id") for record in records(several.directory)}
    assert load.ids
    assert not set(load.ids) - kept
    assert several.status()["ready"]


def test_a_change_is_answered_by_every_process_within_a_second(several: RunningMesh) -> None:
    policies = several.directory / "policies" / "extra.cedar"
    revision = several.status()["revision"]
    started = time.monotonic()
    put(
        policies,
        '@id("extra") permit (principal, action == Action::"GET", resource) when { context.request.path == "/x" };\n',
    )
    wait_until(lambda: all(one["revision"] not in ("", revision) for one in deciders(several)), 30)
    taken = time.monotonic() - started

    assert {one["revision"] for one in deciders(several)} == {several.status()["revision"]}
    assert taken < 10  # the figure is bench's: this machine may be busy
    policies.unlink()
    wait_until(lambda: all(one["revision"] == revision for one in deciders(several)), 30)
