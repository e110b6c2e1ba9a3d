"""Certificates that live seconds, and then a new root: rotated under load, and not one request is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from tests.e2e.conftest import PROGRAM, RunningMesh, copy_of_bookinfo, down, up
from tests.e2e.terminal import wait_until
from tests.e2e.wire import Identity, Refused, admin, https, issue, records, sidecar

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("rotation")]

LIFE = 6  # seconds; renewed after 2.7 to 3.3
ROTATIONS = 3
SIDECARS = ("details-v1", "ingress", "productpage-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3")
RATINGS = "outbound|9080||ratings.default"


@pytest.fixture(scope="module")
def brief(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """Bookinfo with certificates of LIFE."""
    directory = copy_of_bookinfo(tmp_path_factory.mktemp("rotation") / "bookinfo", root)
    (directory / "policyd.yaml").write_text(f"ca: {{ttl: {LIFE}s}}\n")
    try:
        yield up(directory)
    finally:
        down(directory)


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of the requests; the certificates that ratings showed, in turn; each Envoy's process at the start."""

    edge: Counter[object]
    inside: Counter[object]
    burst: Counter[object]
    shown: tuple[x509.Certificate, ...]
    pids: dict[str, int]


class Load:
    """Asks again and again until told to stop; counts what came of it."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self.seen: Counter[object] = Counter()
        self._ask = ask
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.seen[self._ask()] += 1
            except httpx.HTTPError as error:
                self.seen[repr(error)] += 1

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def renewals(mesh: RunningMesh) -> Counter[str]:
    """How often each sidecar was given a new certificate, as its agent tells."""
    log = (mesh.directory / ".policyd" / "run" / "policyd.agent.log").read_text()
    events = [json.loads(line) for line in log.splitlines()]
    return Counter(event["instance"] for event in events if event["event"] == "sidecar.renewed")


def handshakes(mesh: RunningMesh, instance: str, cluster: str) -> int:
    """How many connections the sidecar of `instance` has opened to `cluster`, mutually verified."""
    text = admin(Path(sidecar(mesh, instance)["admin_socket"]), "/stats?filter=ssl.handshake&format=json")
    [found] = [one for one in json.loads(text)["stats"] if one.get("name") == f"cluster.{cluster}.ssl.handshake"]
    return int(found["value"])


@pytest.fixture(scope="module")
def rotated(brief: RunningMesh, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What was seen while every sidecar's certificate changed ROTATIONS times under load."""
    page = brief.client("productpage-v1", patient=False)
    gateway = httpx.Client(base_url=brief.gateway, timeout=20)
    pids = {name: sidecar(brief, name)["pid"] for name in SIDECARS}
    identity = issue(brief.directory, "productpage-v1", tmp_path_factory.mktemp("by-hand") / "id", "--ttl", "1h")
    port = brief.place("ratings-v1")["inbound_port"]
    shown: list[x509.Certificate] = []
    start = renewals(brief)
    with (
        page, gateway,
        Load(lambda: gateway.get("/productpage").status_code) as edge,
        Load(lambda: page.get("http://ratings:9080/ratings/0").status_code) as inside,
    ):  # fmt: skip

        def enough() -> bool:
            shown.append(https(port, identity, "/ratings/0").peer)
            done = renewals(brief)
            return all(done[name] - start[name] >= ROTATIONS for name in SIDECARS)

        wait_until(enough, 60, lambda: str(renewals(brief)))
        # idle connections are used again, so only more requests at once than ever before open new ones
        before, width = handshakes(brief, "productpage-v1", RATINGS), 8
        burst: Counter[object] = Counter()
        while handshakes(brief, "productpage-v1", RATINGS) == before:
            width *= 2
            burst.update(_at_once(brief, width))
    return Seen(edge.seen, inside.seen, burst, tuple(shown), pids)


def _at_once(mesh: RunningMesh, width: int) -> list[int]:
    limits = httpx.Limits(max_connections=width)
    proxy = mesh.place("productpage-v1")["proxy_url"]
    with (
        httpx.Client(proxy=proxy, trust_env=False, timeout=20, limits=limits) as client,
        ThreadPoolExecutor(width) as threads,
    ):
        asked = [threads.submit(client.get, "http://ratings:9080/ratings/0") for _ in range(width)]
        return [one.result().status_code for one in asked]


def test_not_one_request_fails(rotated: Seen) -> None:
    assert set(rotated.edge) == {200}
    assert set(rotated.inside) == {200}
    assert rotated.edge[200] > 20
    assert rotated.inside[200] > 200


def test_connections_opened_after_the_rotations_are_verified_as_well(rotated: Seen) -> None:
    assert set(rotated.burst) == {200}


def test_each_new_connection_is_shown_the_newest_certificate(brief: RunningMesh, rotated: Seen) -> None:
    issued = {
        record["detail"]["serial"]
        for record in records(brief.directory, kind="issuance", decision="allow")
        if record["detail"]["spiffe_id"].endswith("/sa/bookinfo-ratings")
    }
    shown = [f"{peer.serial_number:032x}" for peer in rotated.shown]

    assert len(set(shown)) >= ROTATIONS
    assert set(shown) <= issued
    # once replaced, a certificate is never seen again
    assert [one for at, one in enumerate(shown) if one in shown[:at] and one != shown[at - 1]] == []


def test_certificates_live_as_long_as_the_settings_say(rotated: Seen) -> None:
    ends = {peer.not_valid_after_utc for peer in rotated.shown}

    gaps = [(late - early).total_seconds() for early, late in zip(sorted(ends), sorted(ends)[1:], strict=False)]
    assert all(1 < gap <= LIFE for gap in gaps), gaps


def test_no_envoy_was_started_anew(brief: RunningMesh, rotated: Seen) -> None:
    assert {name: sidecar(brief, name)["pid"] for name in SIDECARS} == rotated.pids


def test_one_stream_a_secret_however_many_refer_to_it(brief: RunningMesh, rotated: Seen) -> None:
    assert rotated.shown
    for name in SIDECARS:
        text = admin(Path(sidecar(brief, name)["admin_socket"]), "/stats?filter=policyd-sds.upstream_rq_active$")
        assert text.split() == ["cluster.policyd-sds.upstream_rq_active:", "2"]


def test_a_certificate_that_has_ended_is_refused(brief: RunningMesh, tmp_path: Path) -> None:
    port = brief.place("ratings-v1")["inbound_port"]
    identity = issue(brief.directory, "productpage-v1", tmp_path / "id", "--ttl", "5s")
    assert https(port, identity, "/ratings/0").status == 200

    wait_until(lambda: datetime.now(UTC) > identity.leaf.not_valid_after_utc, 10)
    with pytest.raises(Refused):
        https(port, identity, "/ratings/0")


@dataclass(frozen=True, slots=True)
class Rerooted:
    """What came of the requests while the root was replaced, and of new connections under either root after each step.

    `states` are those of the generations after each step; `old` and `new` are identities issued by hand.
    """

    edge: Counter[object]
    inside: Counter[object]
    burst: Counter[object]
    single: dict[str, int]
    states: dict[str, list[str]]
    old: Identity
    new: Identity


def step(mesh: RunningMesh, *words: str) -> list[str]:
    """Make a step of the rotation as soon as it is let; the states of the generations then."""
    command = [PROGRAM, "ca", "rotate", *words, "--dir", str(mesh.directory), "--json"]
    tried: list[subprocess.CompletedProcess[str]] = []

    def made() -> bool:
        tried.append(subprocess.run(command, capture_output=True, text=True, timeout=60))
        return tried[-1].returncode == 0

    wait_until(made, 60, lambda: tried[-1].stderr)
    return [one["state"] for one in json.loads(tried[-1].stdout)["generations"]]


@pytest.fixture(scope="module")
def rerooted(brief: RunningMesh, rotated: Seen, tmp_path_factory: pytest.TempPathFactory) -> Rerooted:
    """What was seen while the root was replaced under load, from the first step to the last."""
    folder = tmp_path_factory.mktemp("rerooted")
    old = issue(brief.directory, "productpage-v1", folder / "old", "--ttl", "1h")
    port, width = brief.place("ratings-v1")["inbound_port"], sum(rotated.burst.values())
    single: dict[str, int] = {}
    states: dict[str, list[str]] = {}
    burst: Counter[object] = Counter()
    gateway = httpx.Client(base_url=brief.gateway, timeout=20)
    page = brief.client("productpage-v1", patient=False)
    with (
        page, gateway,
        Load(lambda: gateway.get("/productpage").status_code) as edge,
        Load(lambda: page.get("http://ratings:9080/ratings/0").status_code) as inside,
    ):  # fmt: skip
        for words in (("prepare", "root"), ("activate",), ("taint",), ("revoke", "--early")):
            states[words[0]] = step(brief, *words)
            if words[0] == "prepare":  # it believes the new root as well, as everybody does now
                brief.says("ca", "bundle", "export", str(folder / "roots.pem"), "--pem")
                old = replace(old, roots=folder / "roots.pem")
            if words[0] != "revoke":
                single[words[0]] = https(port, old, "/ratings/0").status
        new = issue(brief.directory, "productpage-v1", folder / "new", "--ttl", "1h")
        before = handshakes(brief, "productpage-v1", RATINGS)
        while handshakes(brief, "productpage-v1", RATINGS) == before:
            width *= 2
            burst.update(_at_once(brief, width))
    return Rerooted(edge.seen, inside.seen, burst, single, states, old, new)


def test_not_one_request_fails_while_the_root_is_replaced(rerooted: Rerooted) -> None:
    assert rerooted.states == {
        "prepare": ["active", "prepared"],
        "activate": ["retired", "active"],
        "taint": ["tainted", "active"],
        "revoke": ["active"],
    }
    assert set(rerooted.edge) == {200}
    assert set(rerooted.inside) == {200}
    assert rerooted.edge[200] > 5
    assert rerooted.inside[200] > 20
    assert set(rerooted.burst) == {200}


def test_what_the_old_root_signed_is_good_until_it_is_gone(brief: RunningMesh, rerooted: Rerooted) -> None:
    port = brief.place("ratings-v1")["inbound_port"]
    assert rerooted.single == {"prepare": 200, "activate": 200, "taint": 200}
    assert https(port, rerooted.new, "/ratings/0").status == 200
    wait_until(lambda: _is_refused(port, rerooted.old), 20)


def _is_refused(port: int, identity: Identity) -> bool:
    try:
        assert https(port, identity, "/ratings/0").status == 200
    except Refused:
        return True
    return False


def test_the_journal_is_sealed_under_both_roots_and_tells_each_step(brief: RunningMesh, rerooted: Rerooted) -> None:
    assert rerooted.states
    steps = [
        record["detail"]["operation"].removeprefix("ca.rotate.")
        for record in records(brief.directory, kind="operation")
        if record["detail"]["operation"].startswith("ca.rotate.")
    ]
    assert steps == ["prepare", "activate", "taint", "revoke"]
    assert brief.says("log", "verify")["whole"]


def test_no_envoy_was_started_anew_for_a_root(brief: RunningMesh, rotated: Seen, rerooted: Rerooted) -> None:
    assert rerooted.states
    assert {name: sidecar(brief, name)["pid"] for name in SIDECARS} == rotated.pids


def test_what_ended_while_policyd_was_away_comes_back(brief: RunningMesh) -> None:
    """The agent's own certificate too: nothing is left that TLS would believe, but the key that it had."""
    pid = int(json.loads((brief.directory / ".policyd" / "server.json").read_text())["pid"])
    log = brief.directory / ".policyd" / "run" / "policyd.agent.log"
    gone = datetime.now(UTC)
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: all(ends < datetime.now(UTC) for ends in ends_of(brief)), 60)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: any(ends > datetime.now(UTC) for ends in ends_of(brief)[:1]), 60)
    wait_until(lambda: httpx.get(f"{brief.gateway}/productpage", trust_env=False).status_code == 200, 60)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    back = [one for one in events if one["event"] == "agent.came_back"]
    assert back
    [first, *_] = [
        one
        for one in records(brief.directory, kind="issuance", decision="allow")
        if datetime.fromisoformat(one["time"]) > gone and one["detail"]["requested_by"] == "attestation"
    ]
    assert first["detail"]["evidence"]["kind"] == "renewal"
    assert first["principal"] == 'Unauthenticated::"anonymous"'


def ends_of(mesh: RunningMesh) -> list[datetime]:
    """When the certificates of the agent and of each sidecar end, as the agent tells."""
    runtime = Path(json.loads((mesh.directory / ".policyd" / "server.json").read_text())["admin_socket"]).parent
    status = json.loads((runtime / "agent" / "status.json").read_text())
    return [datetime.fromisoformat(one["svid_expires"]) for one in (status["agent"], *status["sidecars"])]
