"""Decisions that an agent does not read wait in its Envoy up to a bound; there it refuses, and loses none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import RunningMesh
from tests.e2e.joining import Agent, Serve, agent, token_of
from tests.e2e.terminal import stopped, wait_until
from tests.e2e.test_local import LOCAL, PATIENCE, decisions, declare_shop, said

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("local-memory")]

MEBIBYTES = 48
LONG = "?" + "x" * 48_000  # so that few decisions fill it
TOO_MANY = (MEBIBYTES << 20) // len(LONG)  # for what an idle Envoy leaves of it
INSTANCES = ("web-v1", "shop-v1")


@pytest.fixture(scope="module")
def mesh(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A control plane alone; of the service that is asked all is refused, and no application needs to run."""
    directory = tmp_path_factory.mktemp("memory") / "mesh"
    declare_shop(directory, root, LOCAL.replace("100", "0"))
    serve = Serve(directory)
    yield RunningMesh(directory)
    serve.end()


@pytest.fixture(scope="module")
def joined(mesh: RunningMesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent whose Envoys may take little."""
    folder = tmp_path_factory.mktemp("joined") / "agent"
    words = [word for name in INSTANCES for word in ("--workload", name)]
    token = token_of(mesh, "--agent", "one", *words)
    with agent(
        folder, "--join", token, "--runtime", str(folder / "run"), "--envoy-memory", str(MEBIBYTES), "--metrics",
        "127.0.0.1:0",
    ) as running:  # fmt: skip
        running.wait("sidecar.ready", len(INSTANCES))
        yield running


def metric(joined: Agent, name: str) -> float:
    """What the agent tells Prometheus of the shop's Envoy, once that has looked at its memory for the first time."""
    [place] = joined.said("agent.metrics")
    found: list[float] = []

    def is_told() -> bool:
        page = httpx.get(f"http://{place['address']}/metrics", trust_env=False, timeout=20).text
        lines = [line for line in page.splitlines() if line.startswith(f'{name}{{proxy="shop-v1"}}')]
        found[:] = [float(line.split()[1]) for line in lines]
        return found != []

    wait_until(is_told, PATIENCE)
    [value] = found
    return value


class Caller:
    """Asks the shop for what it refuses, as `web`; `ids` are those of the decisions."""

    def __init__(self, web: httpx.Client) -> None:
        self._web = web
        self.ids: set[str] = set()

    def ask(self, query: str = "") -> int:
        """The status."""
        answer = self._web.get(f"http://shop/open/admin{query}")
        if answer.status_code == 403:
            self.ids.add(answer.headers["x-policyd-decision-id"])
        return answer.status_code


def test_an_envoy_whose_agent_stands_still_refuses_at_its_bound_and_tells_all_once_that_goes_on(
    mesh: RunningMesh, joined: Agent
) -> None:
    with mesh.client("web-v1", patient=False) as web:
        caller = Caller(web)
        wait_until(lambda: caller.ask() == 403, PATIENCE)  # its routes have come
        before = metric(joined, "policyd_proxy_memory_ratio")

        with stopped(joined.process.pid):
            seen = Counter(caller.ask(LONG) for _ in range(TOO_MANY * 2))
            short = web.get("http://shop/open/admin")

        wait_until(lambda: caller.ask() == 403, PATIENCE)  # by itself, as soon as there is room

    assert before < 0.6
    assert set(seen) == {403, 503}
    assert seen[403] > TOO_MANY // 3
    assert seen[503] > TOO_MANY // 2  # they add nothing to what waits: it stays refused
    assert (short.status_code, short.text) == (503, "envoy overloaded")
    wait_until(lambda: {one["decision_id"] for one in decisions(mesh)} >= caller.ids, PATIENCE)
    assert len(decisions(mesh)) == len(caller.ids)
    assert said(mesh, "local.gap") == []
    assert metric(joined, "policyd_proxy_refused_total") > TOO_MANY // 2
    wait_until(lambda: metric(joined, "policyd_proxy_memory_ratio") < 0.6, PATIENCE)


def test_the_agent_says_that_its_envoy_refused(joined: Agent) -> None:
    joined.wait("sidecar.full", timeout=PATIENCE)

    [told] = joined.said("sidecar.full")
    assert {name: told[name] for name in ("level", "instance", "memory")} == {
        "level": "warning", "instance": "shop-v1", "memory": MEBIBYTES << 20
    }  # fmt: skip
    assert told["refused"] > TOO_MANY // 2
