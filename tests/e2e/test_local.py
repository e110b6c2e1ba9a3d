"""Sidecars that decide by themselves: the answers, the records and the switch, through real Envoys and a real agent."""

from __future__ import annotations

import json
import re
import shutil
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.processes import processes
from policyd.cli.main import run
from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.terminal import stopped, wait_until
from tests.fakes.issuer import Issuer
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("local")]

PATIENCE = 90  # seconds, on a busy machine
WORKLOADS = """\
workloads:
  web-v1:  {service: web, port: 80, command: [python, echo.py]}
  shop-v1: {service: shop, port: 80, command: [python, echo.py]}
"""
POLICIES = """\
@id("open") permit (principal, action in Action::"http", resource) when { context.request.path like "/open*" };
@id("admin")
forbid (principal, action in Action::"http", resource) when { context.request.path == "/open/admin" };
@id("team")
permit (principal, action in Action::"http", resource)
when { context.request.headers.hasTag("x-team") && context.request.headers.getTag("x-team") == "red" };
"""
EDITORS = """
@id("editors")
permit (principal, action in Action::"http", resource)
when { context.request.path == "/edit" && context has user && context.user.hasTag("roles") &&
  context.user.getTag("roles").contains("editor") };
"""
PEOPLE = Issuer("https://people.example.com")
TOKENS = f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people}}
spec:
  selector: {{matchLabels: {{app: shop}}}}
  jwtRules: [{{issuer: https://people.example.com, jwks: '{PEOPLE.jwks}'}}]
"""
FORBID = '@id("{}") forbid (principal, action in Action::"http", resource) when {{ {} }};\n'
CLOSED = FORBID.format("flip", 'context.request.path == "/open/flip"')
TIMED = FORBID.format("night", 'context.time < datetime("2001-01-01")')
ENFORCEMENT = """\
apiVersion: policyd.io/v1
kind: Enforcement
metadata: {{name: shop}}
spec: {{selector: {{matchLabels: {{app: shop}}}}, enforcement: {}}}
"""
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
LOCAL, AUTO = (f"{mode}, durability: async, samplePercent: 100" for mode in ("local", "auto"))


def declare_shop(directory: Path, root: Path, mode: str) -> None:
    """A service that decides as `mode` says, and who asks it."""
    for folder in ("mesh", "policies"):
        (directory / folder).mkdir(parents=True)
    shutil.copy(root / "tests" / "e2e" / "apps" / "echo.py", directory)
    (directory / "workloads.yaml").write_text(WORKLOADS)
    (directory / "policies" / "all.cedar").write_text(POLICIES)
    (directory / "mesh" / "enforcement.yaml").write_text(ENFORCEMENT.format(mode))


@pytest.fixture(scope="module")
def mesh(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A service whose sidecar decides, and who asks it."""
    directory = tmp_path_factory.mktemp("local") / "mesh"
    declare_shop(directory, root, LOCAL)
    (directory / "mesh" / "tokens.yaml").write_text(TOKENS)
    try:
        yield up(directory)
    finally:
        down(directory)


def decisions(mesh: RunningMesh) -> list[dict[str, Any]]:
    """The records of decisions at the shop."""
    return [one for one in mesh.records("shop-v1") if one["kind"] == "decision"]


def arrived(mesh: RunningMesh, decision_id: str) -> dict[str, Any]:
    """The record of a decision, once the agent has forwarded it."""
    wait_until(lambda: any(one["decision_id"] == decision_id for one in decisions(mesh)), PATIENCE)
    return mesh.record(decision_id)


def scraped(mesh: RunningMesh, name: str) -> dict[str, float]:
    """Series of a metric of policyd, by their labels."""
    http = json.loads((mesh.directory / ".policyd" / "server.json").read_text())["http"]
    lines = httpx.get(f"http://{http}/metrics", timeout=20).text.splitlines()
    found = (line.rpartition(" ") for line in lines if line.startswith(name))
    return {series.removeprefix(name): float(value) for series, _, value in found}


def counted(mesh: RunningMesh) -> Counter[tuple[str, str]]:
    """What the shop's Envoy counted, by decision and policy."""
    found: Counter[tuple[str, str]] = Counter()
    for line in httpx.get(mesh.metrics, trust_env=False, timeout=20).text.splitlines():
        if line.startswith("istio_requests_total{") and 'reporter="destination"' in line and 'proxy="shop-v1"' in line:
            labels = dict(re.findall(r'([a-z_]+)="([^"]*)"', line))
            found[labels["decision"], labels["policy"]] += int(float(line.rpartition(" ")[2]))
    return found


def spans(mesh: RunningMesh) -> list[tuple[str, str, str]]:
    """What the spans of the trace say was decided; none before the first has come."""
    if TRACE not in [one["id"] for one in mesh.says("traces", "list")["traces"]]:
        return []
    shown = mesh.says("traces", "show", TRACE)["rows"]
    return [(one["decision"], one["policy"], one["decision_id"]) for one in shown]


def test_what_the_sidecar_decides_is_answered_recorded_and_explained_as_what_policyd_decides(
    mesh: RunningMesh,
) -> None:
    with mesh.client("web-v1") as web:
        asked = [
            web.get("http://shop/open?secret=1", headers={"x-team": "blue"}),
            web.get("http://shop/else", headers=[("x-team", "red"), ("x-policyd-decision-id", "mine")]),
            web.get("http://shop/open/admin", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}),
            web.get("http://shop/else", headers=[("x-team", "red"), ("x-team", "red")]),
        ]

    assert [(one.status_code, one.text) for one in asked[2:]] == [(403, "access denied\n")] * 2
    record = arrived(mesh, asked[2].headers["x-policyd-decision-id"])
    nobody = arrived(mesh, asked[3].headers["x-policyd-decision-id"])
    assert (record["decided_by"], record["decision"], record["reasons"]) == ("proxy", "deny", ["admin"])
    assert record["context"]["request"]["path"] == "/open/admin"
    assert nobody["context"]["request"]["headers"] == {"x-team": "red,red"}
    by_reason = Counter(tuple(one.get("reasons", ())) for one in decisions(mesh))
    assert by_reason == {("open",): 1, ("team",): 1, ("admin",): 1, (): 1}
    assert not any("secret" in str(one) or one["decision_id"] == "mine" for one in decisions(mesh))
    wait_until(lambda: scraped(mesh, "policyd_local_decisions_total")['{decision="allow"}'] == 2, PATIENCE)
    assert sum(one.get("decided_by", "") != "proxy" for one in decisions(mesh)) == 0
    told = ("deny", "admin", record["decision_id"])
    wait_until(lambda: told in spans(mesh), PATIENCE, lambda: str(spans(mesh)))
    expected = {("allow", "open"): 1, ("allow", "team"): 1, ("deny", "admin"): 1, ("deny", ""): 1}
    wait_until(lambda: counted(mesh) == expected, PATIENCE, lambda: str(counted(mesh)))


def test_a_record_of_a_sidecar_is_shown_and_explained_as_any(
    mesh: RunningMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    record = next(one for one in decisions(mesh) if one.get("reasons") == ["admin"])
    of_it, folder = record["decision_id"], ("--dir", str(mesh.directory))

    assert run(["log", "show", of_it, *folder, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    run(["policy", "explain", "--decision", of_it, *folder])

    assert (shown["record"]["decided_by"], shown["not_explained"]) == ("proxy", "")
    assert "admin" in capsys.readouterr().out
    wait_until(lambda: int(mesh.status()["decisions"]) == len(decisions(mesh)), PATIENCE)


def test_who_has_a_token_is_known_to_the_sidecar_and_what_it_is_not_sure_of_is_policyds(mesh: RunningMesh) -> None:
    put(mesh.directory / "policies/all.cedar", POLICIES + EDITORS)
    reading = PEOPLE.token("alice", roles=["editor"], salary=123456789)

    with mesh.client("web-v1") as web:

        def answer(token: str = "") -> httpx.Response:
            return web.get("http://shop/edit", headers={"authorization": f"Bearer {token}"} if token else {})

        wait_until(lambda: answer(reading).status_code == 200, PATIENCE)
        began = datetime.now(UTC).isoformat()
        asked = [
            answer(reading),
            answer(PEOPLE.token("bob", roles=["reader"])),
            answer(),
            answer(PEOPLE.token("carol", roles=[])),  # as an empty object looks
            answer(PEOPLE.token("alice", lasts=-3600)),
        ]

    assert [one.status_code for one in asked] == [200, 403, 403, 403, 401]
    wait_until(lambda: len(decided_since(mesh, began)) == 5, PATIENCE)
    found = sorted(decided_since(mesh, began), key=lambda one: str(one["time"]))
    assert [one.get("decided_by", "") for one in found[:4]] == ["proxy", "proxy", "proxy", ""]
    assert [one["context"].get("user", {}).get("claims") for one in found[:4]] == [
        {"roles": ["editor"]},
        {"roles": ["reader"]},
        None,
        {"roles": []},
    ]
    assert found[0]["context"]["user"]["__entity"]["id"] == "https://people.example.com/alice"
    assert not any(b"123456789" in data for data in spooled(mesh).values())
    assert not any("123456789" in str(one) for one in decisions(mesh))
    put(mesh.directory / "policies/all.cedar", POLICIES)


def test_what_is_of_the_sample_policyd_decides_too_and_alike(mesh: RunningMesh) -> None:
    with mesh.client("web-v1") as web:

        def is_compared() -> bool:
            """A busy policyd may be too late for one."""
            web.get("http://shop/open")
            return scraped(mesh, "policyd_local_decisions_compared_total")['{outcome="same"}'] > 0

        wait_until(is_compared, PATIENCE)

    assert scraped(mesh, "policyd_local_decisions_compared_total")['{outcome="different"}'] == 0


def decided_since(mesh: RunningMesh, began: str) -> list[dict[str, Any]]:
    """Records of earlier requests may still be on their way."""
    return [one for one in decisions(mesh) if one["time"] >= began]


def said(mesh: RunningMesh, operation: str) -> list[dict[str, Any]]:
    """What was said of local decisions besides their records."""
    return [one for one in mesh.records() if one.get("detail", {}).get("operation") == operation]


def server_of(mesh: RunningMesh) -> int:
    """The process that puts on record; others decide."""
    return int(json.loads((mesh.directory / ".policyd" / "server.json").read_text())["pid"])


def test_what_is_decided_while_policyd_is_away_is_on_record_when_it_is_back(mesh: RunningMesh) -> None:
    began = datetime.now(UTC).isoformat()
    with mesh.client("web-v1", patient=False) as web, stopped(server_of(mesh)):
        statuses = Counter(web.get("http://shop/open").status_code for _ in range(200))

    assert statuses == {200: 200}
    wait_until(lambda: len(decided_since(mesh, began)) >= 200, PATIENCE)
    assert len(decided_since(mesh, began)) == 200
    assert len({one["decision_id"] for one in decided_since(mesh, began)}) == 200


def agent_of(mesh: RunningMesh) -> int:
    """The process that runs the shop's Envoy."""
    facts = json.loads((mesh.directory / ".policyd" / "server.json").read_text())
    runtime = str(Path(facts["admin_socket"]).parent / "agent")
    [agent] = [pid for pid, command in processes(runtime).items() if "envoy" not in command]
    return agent


def test_what_an_agent_that_stood_still_has_not_read_is_on_record_once_it_goes_on(mesh: RunningMesh) -> None:
    """Five times what the pipe between the two holds: the rest waits in Envoy, and no caller waits for it."""
    before, asked = len(decisions(mesh)), 120
    with mesh.client("web-v1", patient=False) as web, stopped(agent_of(mesh)):
        statuses = Counter(web.get("http://shop/open/admin?" + "x" * 48_000).status_code for _ in range(asked))

    wait_until(lambda: len(decisions(mesh)) - before >= asked, PATIENCE)
    assert statuses == {403: asked}
    assert len({one["decision_id"] for one in decisions(mesh)[before:]}) == asked
    assert said(mesh, "local.gap") == []


class Load:
    """Clients that ask without a pause; `answers` are paths with statuses."""

    def __init__(self, mesh: RunningMesh) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self._mesh = mesh
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> None:
        with self._mesh.client("web-v1", patient=False) as web:
            while not self._stop.is_set():
                for path in ("/open", "/open/admin", "/open/flip"):
                    status = self._status(web, path)
                    with self._lock:
                        self.answers[path, status] += 1

    def _status(self, web: httpx.Client, path: str) -> int:
        """The answer, 0 for none."""
        try:
            return web.get(f"http://shop{path}").status_code
        except httpx.HTTPError:
            return 0

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.run) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(PATIENCE)


def test_no_request_is_dropped_or_misdecided_while_the_decision_moves_and_revisions_change(mesh: RunningMesh) -> None:
    before = {one["decision_id"] for one in decisions(mesh)}
    policies, enforcement = (mesh.directory / name for name in ("policies/all.cedar", "mesh/enforcement.yaml"))
    is_closed: dict[str, bool] = {}
    load, moments = Load(mesh), list[str]()

    def decided(since: str, closed: bool, by: str) -> bool:
        """Whether a request was decided so since the change."""
        for one in decisions(mesh):
            if one["time"] < since or one["context"]["request"]["path"] != "/open/flip":
                continue
            is_closed.setdefault(one["revision"], one["decision"] == "deny")
            if (is_closed[one["revision"]], one.get("decided_by", "")) == (closed, by):
                return True
        return False

    with load.running():
        for text, mode, closed, by in (
            (POLICIES, LOCAL, False, "proxy"),
            (POLICIES + CLOSED, LOCAL, True, "proxy"),  # another revision
            (POLICIES + CLOSED, "", True, ""),  # no Enforcement any more
            (POLICIES, "central", False, ""),
            (POLICIES, AUTO, False, "proxy"),
            (POLICIES + CLOSED + TIMED, AUTO, True, ""),  # cannot be compiled
            (POLICIES + CLOSED, AUTO, True, "proxy"),
        ):
            moments.append(datetime.now(UTC).isoformat())
            put(enforcement, ENFORCEMENT.format(mode) if mode else "")
            put(policies, text)
            wait_until(partial(decided, datetime.now(UTC).isoformat(), closed, by), PATIENCE)

    late = sum(count for (_, status), count in load.answers.items() if status == 503)  # policyd has a second, no more
    statuses = Counter(status for _, status in load.answers.elements() if status != 503)
    assert set(statuses) == {200, 403}
    right = {("/open", 200), ("/open/admin", 403), ("/open", 503), ("/open/admin", 503)}
    denied = [one for one in decisions(mesh) if one["context"]["request"]["path"] == "/open" and one["status"] != 200]
    assert {answer for answer in load.answers if answer[0] != "/open/flip"} <= right, denied
    asked = sum(load.answers.values())
    wait_until(lambda: len(decisions(mesh)) >= len(before) + asked - late, PATIENCE)
    found = [one for one in decisions(mesh) if one["decision_id"] not in before]
    assert len({one["decision_id"] for one in found}) == len(found)
    assert not [one for one in found if moments[3] <= one["time"] < moments[4] and one.get("decided_by")]
    flips = [one for one in found if one["context"]["request"]["path"] == "/open/flip"]
    assert all((one["decision"] == "deny") == is_closed[one["revision"]] for one in flips)
    if not late:  # what was too late may have been decided, or more than once
        assert Counter(one["status"] for one in found) == statuses
    assert {one.get("decided_by", "") for one in found} == {"", "proxy"}
    assert said(mesh, "local.differs") == []
    assert said(mesh, "local.gap") == []


def spooled(mesh: RunningMesh) -> dict[Path, bytes]:
    """What the agent has on disk."""
    return {file: file.read_bytes() for file in mesh.directory.glob(".policyd/agent/decisions/*/*.told")}


def change_what_is_on_its_way(mesh: RunningMesh, old: bytes, new: bytes) -> None:
    """Frames of the spool (a length, a checksum, a body) are read when they are sent: they tell another rule then."""
    for file, data in spooled(mesh).items():
        changed, at = bytearray(data), 0
        while at + 8 <= len(data):
            end = at + 8 + int.from_bytes(data[at : at + 4])
            body = data[at + 8 : end].replace(old, new)
            changed[at + 4 : end] = zlib.crc32(body).to_bytes(4) + body
            at = end
        with file.open("r+b") as spool:
            spool.write(changed)


def test_where_policyd_decides_otherwise_that_is_an_alarm_and_auto_is_central_from_then_on(mesh: RunningMesh) -> None:
    """The sidecar has told `admin`; its spool is made to say `nadmi`, as a filter would that was compiled wrong."""
    rule = b"\x1fdenied\x1f"
    put(mesh.directory / "policies/all.cedar", POLICIES)
    put(mesh.directory / "mesh/enforcement.yaml", ENFORCEMENT.format(AUTO))

    def by(path: str) -> str:
        """Who has decided a request from now."""
        with mesh.client("web-v1") as web:
            began = datetime.now(UTC).isoformat()
            web.get(f"http://shop{path}")
        wait_until(lambda: decided_since(mesh, began) != [], PATIENCE)
        return str(decided_since(mesh, began)[-1].get("decided_by", ""))

    def has_differed() -> bool:
        """A batch that is under way was read before; what comes behind it is on disk. policyd may be too late."""
        with mesh.client("web-v1") as web, stopped(server_of(mesh)):
            before = spooled(mesh)
            web.get("http://shop/open")
            wait_until(lambda: spooled(mesh) != before, PATIENCE)
            ids = [web.get("http://shop/open/admin").headers["x-policyd-decision-id"] for _ in range(5)]
            wait_until(lambda: any(ids[-1].encode() in data for data in spooled(mesh).values()), PATIENCE)
            change_what_is_on_its_way(mesh, rule + b"admin", rule + b"nadmi")
        wait_until(lambda: {one["decision_id"] for one in decisions(mesh)} >= set(ids), PATIENCE)
        return scraped(mesh, "policyd_local_decisions_compared_total")['{outcome="different"}'] > 0

    wait_until(lambda: by("/open") == "proxy", PATIENCE)
    wait_until(has_differed, PATIENCE)

    alarm = said(mesh, "local.differs")[0]["detail"]
    assert (alarm["local"], alarm["central"], alarm["listener"]) == ("deny nadmi", "deny admin", "shop-v1/inbound")
    assert mesh.record(alarm["decision_id"])["reasons"] == ["nadmi"]
    wait_until(lambda: by("/open") == "", PATIENCE)
