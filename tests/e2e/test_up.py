"""`policyd up` as a person uses it: checks, a terminal, Ctrl-C, things that die, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import PROGRAM, RunningMesh, down, up
from tests.e2e.terminal import Terminal, processes_of, stopped, wait_until, wait_until_none_runs
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def run(*words: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *words], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False
    )


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files of what a test starts, and of nothing else; sockets in it have short names."""
    with tempfile.TemporaryDirectory(prefix="t") as name:
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)


def test_check_sends_the_requests_and_leaves_nothing_behind(bookinfo: Path, temporary: Path) -> None:
    done = run("up", str(bookinfo), "--check")

    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("the product page", "reviews asks details", "world-to-ingress", "403"):
        assert text in done.stdout
    wait_until_none_runs(bookinfo)
    assert [path.name for path in temporary.rglob("*") if not path.is_dir()] == []


def test_a_check_that_fails_is_exit_code_1(bookinfo: Path) -> None:
    (bookinfo / "checks.yaml").write_text(
        "- {name: wrong, request: anonymous GET http://ingress/productpage, expect: 418}\n"
    )

    done = run("up", str(bookinfo), "--check")

    assert done.returncode == 1, done.stdout + done.stderr
    assert "418" in done.stdout
    wait_until_none_runs(bookinfo)


BEFORE = {
    "workloads.yaml": """\
workloads:
  page: {service: page, port: 80, command: "sh -c 'exec python3 -m http.server $PORT --bind 127.0.0.1'", health: /}
gateways:
  balanced: {listen: 18083, labels: {at: a}, gatewayTopology: {proxyProtocol: {from: [127.0.0.1]}}}
  row: {listen: 18084, labels: {at: b}, gatewayTopology: {numTrustedProxies: 2}}
""",
    "mesh/edge.yaml": """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: balanced}
spec: {selector: {at: a}, servers: [{port: {number: 18083, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: row}
spec: {selector: {at: b}, servers: [{port: {number: 18084, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: page}
spec: {hosts: ["*"], gateways: [balanced, row], http: [{route: [{destination: {host: page}}]}]}
""",
    "policies/all.cedar": """\
@id("from-there")
permit (principal is Unauthenticated, action == Action::"GET", resource)
when { context.client_ip.isInRange(ip("203.0.113.0/24")) };
@id("gateways-to-page")
permit (principal is Workload, action == Action::"GET", resource == Service::"page.default");
""",
    "checks.yaml": """\
- {name: near balanced, request: anonymous GET http://balanced/, client: 203.0.113.9, expect: 200}
- {name: far balanced, request: anonymous GET http://balanced/, client: 198.51.100.9, expect: 403}
- {name: here balanced, request: anonymous GET http://balanced/, expect: 403}
- {name: near row, request: anonymous GET http://row/, client: 203.0.113.9, expect: 200}
- {name: far row, request: anonymous GET http://row/, client: 198.51.100.9, expect: 403}
- {name: here row, request: anonymous GET http://row/, expect: 403}
""",
}


def test_checks_ask_gateways_as_what_stands_before_them(tmp_path: Path) -> None:
    for name, text in BEFORE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = run("up", str(tmp_path), "--check")

    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if " ok " in line]
    assert [(row[0], row[1], "from-there" in row) for row in rows] == [
        (where, at, where == "near") for at in ("balanced", "row") for where in ("near", "far", "here")
    ]
    wait_until_none_runs(tmp_path)


def test_without_policies_every_request_is_denied_and_up_says_so(bookinfo: Path) -> None:
    for file in (bookinfo / "policies").iterdir():
        file.unlink()
    for file in (bookinfo / "cases").iterdir():
        file.unlink()
    (bookinfo / "checks.yaml").write_text(
        "- {name: page, request: anonymous GET http://ingress/productpage, expect: 403}\n"
    )

    done = run("up", str(bookinfo), "--check")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "every request is denied" in done.stdout + done.stderr


def test_on_a_terminal_it_stays_until_ctrl_c(bookinfo: Path) -> None:
    terminal = Terminal([PROGRAM, "up", str(bookinfo)], cwd=bookinfo)
    try:
        terminal.wait_for("Ctrl-C", 90)
        assert "/productpage" in terminal.text
        terminal.interrupt()
        code = terminal.end(40)
    finally:
        terminal.close()

    assert code == 0, terminal.text
    assert "Traceback" not in terminal.text
    wait_until_none_runs(bookinfo)


def test_sigterm_ends_everything(bookinfo: Path) -> None:
    terminal = Terminal([PROGRAM, "up", str(bookinfo)], cwd=bookinfo)
    try:
        terminal.wait_for("Ctrl-C", 90)
        terminal.process.send_signal(signal.SIGTERM)
        terminal.end(40)
    finally:
        terminal.close()

    wait_until_none_runs(bookinfo)


def test_a_killed_up_leaves_no_orphan(bookinfo: Path) -> None:
    terminal = Terminal([PROGRAM, "up", str(bookinfo)], cwd=bookinfo)
    try:
        terminal.wait_for("Ctrl-C", 90)
        terminal.process.kill()
        terminal.end(10)
        wait_until_none_runs(bookinfo)
    finally:
        terminal.close()


@pytest.fixture
def own_mesh(bookinfo: Path):
    """A mesh that the test may break."""
    yield up(bookinfo)
    down(bookinfo)
    wait_until_none_runs(bookinfo)


def pid_of(mesh: RunningMesh, *words: str) -> int:
    [line] = [line for line in processes_of(mesh.directory) if all(word in line for word in words)]
    return int(line.split()[0])


def page_status(mesh: RunningMesh) -> int:
    try:
        return mesh.get("/productpage").status_code
    except httpx.TransportError:
        return 0


def test_a_dead_sidecar_comes_back(own_mesh: RunningMesh) -> None:
    gateway = own_mesh.gateway

    def answers() -> bool:
        try:
            return httpx.get(f"{gateway}/productpage", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    with stopped(pid_of(own_mesh, "policyd-proxy run")):  # who starts another one, maybe before one looks
        os.kill(pid_of(own_mesh, "bin/envoy", "ingress"), signal.SIGKILL)
        wait_until(lambda: not answers(), 10)
    wait_until(answers, 60)


def test_while_policyd_is_away_requests_are_503_and_then_pass_again(own_mesh: RunningMesh) -> None:
    gateway, statuses = own_mesh.gateway, list[int]()

    def last() -> int:
        statuses.append(httpx.get(f"{gateway}/productpage", timeout=10).status_code)
        return statuses[-1]

    with stopped(pid_of(own_mesh, "policyd up")):  # who starts it again, maybe before anybody has asked
        os.kill(pid_of(own_mesh, "policyd", " serve "), signal.SIGKILL)
        wait_until(lambda: last() == 503, 40, lambda: str(statuses))
    wait_until(lambda: last() == 200, 60, lambda: str(statuses))
    assert set(statuses) <= {200, 503}
    assert own_mesh.says("log", "verify")["whole"] is True


def test_a_server_that_is_ended_and_started_again_leaves_its_proxies_where_they_are(own_mesh: RunningMesh) -> None:
    """As for an upgrade: the Envoys run on, and their ports are nobody else's."""
    before = own_mesh.says("status")
    os.kill(pid_of(own_mesh, "policyd", " serve "), signal.SIGTERM)

    def back() -> bool:
        try:
            return own_mesh.says("status")["pid"] != before["pid"]
        except AssertionError:
            return False

    wait_until(back, 60)
    assert own_mesh.says("status")["instances"] == before["instances"]
    assert own_mesh.says("status")["warnings"] == before["warnings"]


def test_a_changed_policy_is_in_force_within_a_moment(own_mesh: RunningMesh) -> None:
    policy = own_mesh.directory / "policies" / "details.cedar"
    text = policy.read_text()
    shutil.rmtree(own_mesh.directory / "cases")  # which would refuse the change

    with own_mesh.client("reviews-v1") as reviews:

        def asked() -> int:
            return reviews.get("http://details:9080/details/0").status_code

        assert asked() == 403
        put(policy, text.replace("bookinfo-productpage", "bookinfo-reviews"))
        wait_until(lambda: asked() == 200, 10)
        put(policy, text)
        wait_until(lambda: asked() == 403, 10)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("policies/details.cedar", "permit (principal, action", "policies/details.cedar"),
        ("policies/details.cedar", '@id("x") permit (principal, action, resource) when { context.nope };', "nope"),
        ("groups.yaml", "groups: {a: {}, a: {}}\n", "groups.yaml:1"),
        ("mesh/gateway.yaml", "kind: Gateway\n", "mesh/gateway.yaml"),
        ("workloads.yaml", "workloads: {a: {servcie: a}}\n", "servcie"),
        (
            "cases/reviews.yaml",
            "- {name: no, request: anonymous GET http://reviews/, expect: allow}\n",
            "cases/reviews.yaml",
        ),
    ],
)
def test_a_bad_change_is_refused_and_the_last_good_revision_decides(
    own_mesh_kept: RunningMesh, file: str, text: str, says: str
) -> None:
    mesh = own_mesh_kept
    target = mesh.directory / file
    good, revision = target.read_text(), mesh.status()["revision"]
    try:
        put(target, text)
        wait_until(lambda: bool(mesh.status()["refused"]), 60)
        status = mesh.status()

        assert status["revision"] == revision
        told = [f"{problem['file']}:{problem.get('line', '')}: {problem['message']}" for problem in status["refused"]]
        assert any(says in line for line in told), told
        assert status["ready"], "what is in force decides on"
        assert page_status(mesh) == 200
    finally:
        put(target, good)
        wait_until(lambda: mesh.status()["ready"] and not mesh.status()["refused"], 60)


@pytest.fixture(scope="module")
def own_mesh_kept(root: Path, tmp_path_factory: pytest.TempPathFactory):
    """One mesh for all rows of the bad changes: each row puts back what it broke."""
    from tests.e2e.conftest import copy_of_bookinfo

    directory = copy_of_bookinfo(tmp_path_factory.mktemp("bad") / "bookinfo", root)
    yield up(directory)
    down(directory)


def test_a_second_up_of_the_same_folder_is_refused(own_mesh_kept: RunningMesh) -> None:
    done = run("up", str(own_mesh_kept.directory), "--check")

    assert done.returncode == 1
    assert "policyd down" in done.stderr


def test_a_broken_folder_is_exit_code_3_with_every_problem(bookinfo: Path) -> None:
    (bookinfo / "groups.yaml").write_text("groups: {x: {workloads: [nobody]}}\n")
    (bookinfo / "policies" / "details.cedar").write_text("permit (principal")

    done = run("up", str(bookinfo), "--check")

    assert done.returncode == 3
    assert "groups.yaml:1" in done.stderr
    assert "policies/details.cedar" in done.stderr
    wait_until_none_runs(bookinfo)
