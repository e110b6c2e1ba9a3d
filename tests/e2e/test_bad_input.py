"""A full disk, ports that are taken, state that is spoiled: said with what to do, and nothing is allowed."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from policyd.admin_client import AdminClient
from tests.e2e.conftest import PROGRAM, RunningMesh, copy_of_bookinfo, down
from tests.e2e.terminal import wait_until, wait_until_none_runs
from tests.e2e.wire import Identity, issue, policyd
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("bad-input")]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL)


@contextmanager
def taken_port() -> Iterator[int]:
    """A port that another program has."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.fixture(scope="module")
def started(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningMesh, int, str]]:
    """A mesh whose gateway wants a port that is taken; that port, and what `up` said. Put back what you break."""
    directory = copy_of_bookinfo(tmp_path_factory.mktemp("bad") / "bookinfo", root)
    with taken_port() as port:
        for file in ("workloads.yaml", "mesh/gateway.yaml"):
            text = (directory / file).read_text()
            assert "8080" in text
            (directory / file).write_text(text.replace("8080", str(port)))
        try:
            done = run("up", str(directory), "--detach")
            assert done.returncode == 0, done.stdout + done.stderr
            yield RunningMesh(directory), port, done.stdout
        finally:
            down(directory)


@pytest.fixture
def mesh(started: tuple[RunningMesh, int, str]) -> RunningMesh:
    return started[0]


def test_a_gateway_s_port_in_use_is_replaced_and_that_is_said(started: tuple[RunningMesh, int, str]) -> None:
    mesh, port, said = started
    [listen] = mesh.place("ingress")["listens"]
    warning = f"port {port} was in use: the gateway `ingress` listens on {listen['actual']} instead"

    assert (listen["declared"], listen["actual"] != port) == (port, True)
    assert warning in " ".join(said.split())
    assert any(warning in one for one in mesh.status()["warnings"])
    assert status_of(mesh) == 200


def status_of(mesh: RunningMesh, path: str = "/productpage") -> int:
    return mesh.get(path).status_code


# ---- a disk without space, a journal that is gone


class Server:
    """The server of a mesh, its probes, and the size that its files may have."""

    def __init__(self, mesh: RunningMesh) -> None:
        self._facts = json.loads((mesh.directory / ".policyd" / "server.json").read_text())

    @property
    def pid(self) -> int:
        """Its process."""
        return int(self._facts["pid"])

    @contextmanager
    def without_space(self) -> Iterator[None]:
        """No file of its processes can grow, as on a full disk; other programs notice nothing."""
        pids = [self._facts["pid"], *(one.pid for one in self.status().deciders)]
        before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
        for pid, (_, hard) in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
        try:
            yield
        finally:
            for pid, limits in before.items():
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)

    def status(self) -> Any:
        """What it says of itself over its socket, at once."""
        client = AdminClient(Path(self._facts["admin_socket"]), Path())
        try:
            return client.status()
        finally:
            client.close()

    def readiness(self) -> tuple[int, str]:
        reply = httpx.get(f"http://{self._facts['http']}/readyz")
        return reply.status_code, reply.text

    def health(self, identity: Identity) -> Any:
        """What `grpc.health.v1` says on the port of decisions."""
        parts = (identity.roots, identity.key, identity.certificate)
        credentials = grpc.ssl_channel_credentials(*(part.read_bytes() for part in parts))
        options = [("grpc.ssl_target_name_override", "policyd")]
        with grpc.secure_channel(self._facts["authz"], credentials, options) as channel:
            return HealthStub(channel).Check(HealthCheckRequest(), timeout=5).status


def test_on_a_full_disk_nothing_passes_and_everything_goes_on_when_there_is_space(
    mesh: RunningMesh, tmp_path: Path
) -> None:
    server, identity = Server(mesh), issue(mesh.directory, "productpage", tmp_path / "own")
    policy, revision = mesh.directory / "policies" / "details.cedar", server.status().revision
    changed = policy.read_text() + '\n@id("nobody-else") forbid (principal, action, resource) when { false };\n'
    assert (status_of(mesh), server.health(identity)) == (200, HealthCheckResponse.SERVING)

    with server.without_space():
        assert {status_of(mesh) for _ in range(5)} == {503}
        assert status_of(mesh, "/nothing-here") == 503
        with mesh.client("productpage-v1") as page, mesh.client("reviews-v1") as reviews:
            assert page.get("http://reviews:9080/reviews/0").status_code == 503
            assert page.delete("http://reviews:9080/reviews/0").status_code == 503
            assert reviews.get("http://details:9080/details/0").status_code == 503

        code, text = server.readiness()
        assert code == 503
        assert "journal` takes no record: File too large" in text
        assert server.health(identity) == HealthCheckResponse.NOT_SERVING
        assert "takes no record" in mesh.status()["not_ready_because"]

        token = policyd(mesh.directory, "ca", "token", "create", "--agent", "laptop", "--workload", "details-v1")
        assert (token.returncode, "look at the disk's free space" in token.stderr) == (1, True), token.stderr
        assert "policyd1." not in token.stdout

        put(policy, changed)
        wait_until(lambda: bool(server.status().refused), 10)
        assert server.status().revision == revision

    wait_until(lambda: status_of(mesh) == 200, 10)
    assert server.readiness()[0] == 200
    assert server.health(identity) == HealthCheckResponse.SERVING
    wait_until(lambda: server.status().revision != revision, 10)  # the change waited for space
    assert not server.status().refused
    assert mesh.says("log", "verify")["whole"] is True
    gaps = [record["detail"] for record in records(mesh) if record.get("detail", {}).get("operation") == "journal.gap"]
    assert gaps
    assert gaps[0]["refused"] >= 9


def records(mesh: RunningMesh) -> list[dict[str, Any]]:
    return mesh.records()


def test_a_journal_that_was_taken_away_is_noticed_and_nothing_passes_until_it_can_be_written(mesh: RunningMesh) -> None:
    server, journal = Server(mesh), mesh.directory / ".policyd" / "journal"
    shutil.rmtree(journal)
    server.readiness()

    wait_until(lambda: status_of(mesh) == 503, 10)
    assert server.readiness()[0] == 503
    assert "No such file or directory" in server.readiness()[1]

    journal.mkdir(mode=0o700)
    wait_until(lambda: status_of(mesh) == 200, 10)
    assert server.readiness()[0] == 200


# ---- changes that cannot be


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("policyd.yaml", "cluster.local", "other.example", "a change of `trustDomain` needs a restart"),
        ("workloads.yaml", "details, port: 9080,", "details, port: 9080, appPort: {port},", "port {port} is in use"),
    ],
)
def test_a_change_that_cannot_be_is_refused_and_the_page_still_works(
    mesh: RunningMesh, file: str, old: str, new: str, says: str
) -> None:
    server, target = Server(mesh), mesh.directory / file
    good = target.read_text()
    assert old in good
    with taken_port() as port:
        put(target, good.replace(old, new.format(port=port)))
        try:
            wait_until(lambda: bool(server.status().refused), 10)
            first = server.status().refused[0]
            assert (first.file, first.line > 0, bool(first.remedy)) == (file, True, True)
            assert says.format(port=port) in first.message
            assert status_of(mesh) == 200
        finally:
            put(target, good)
            wait_until(lambda: not server.status().refused, 10)


def test_a_server_that_is_lost_while_the_folder_is_bad_comes_back_with_what_was_in_force(mesh: RunningMesh) -> None:
    facts, target = mesh.directory / ".policyd" / "server.json", mesh.directory / "policies" / "reviews.cedar"
    good, before = target.read_text(), Server(mesh)
    revision, gone = before.status().revision, before.pid
    put(target, "permit (\n")
    try:
        wait_until(lambda: bool(before.status().refused), 10)
        os.kill(gone, signal.SIGKILL)
        wait_until(lambda: facts.exists() and json.loads(facts.read_text())["pid"] != gone, 30)
        after = Server(mesh)

        status = after.status()
        assert (status.ready, status.revision) == (True, revision)
        assert [one.file for one in status.refused] == ["policies/reviews.cedar"]
        assert "the folder is refused, what was in force since" in after.readiness()[1]
        wait_until(lambda: status_of(mesh) == 200, 10)  # the deciders' connections are new
        assert status_of(mesh, "/api/v1/products/0/reviews") == 200
    finally:
        put(target, good)
        wait_until(lambda: not Server(mesh).status().refused, 10)
    assert Server(mesh).status().revision == revision


# ---- what does not come up


@pytest.fixture
def spoiled(mesh: RunningMesh, tmp_path: Path) -> Path:
    """A small folder with the authority of the running mesh."""
    state = tmp_path / "small" / ".policyd"
    shutil.copytree(mesh.directory / ".policyd" / "ca", state / "ca")
    state.chmod(0o700)
    shutil.copy(mesh.directory / ".policyd" / "format", state)
    (state.parent / "workloads.yaml").write_text("workloads: {web: {service: web, port: 80}}\n")
    return state.parent


def open_a_key(folder: Path) -> str:
    (folder / ".policyd" / "ca" / "intermediate.key").chmod(0o644)
    return "intermediate.key` has mode 0644, others may use it"


def lose_the_format(folder: Path) -> str:
    (folder / ".policyd" / "format").write_text("\x00")
    return "is corrupted: `format` has no version"


def want_a_taken_port(folder: Path) -> str:
    port = json.loads((folder / ".policyd" / "taken").read_text())
    (folder / "workloads.yaml").write_text(f"workloads: {{web: {{service: web, port: 80, appPort: {port}}}}}\n")
    return f"workloads.yaml:1: port {port} is in use by another program; free it or leave the port out"


@pytest.mark.parametrize("spoil", [open_a_key, lose_the_format, want_a_taken_port])
def test_what_cannot_come_up_says_why_and_leaves_nothing_running(spoiled: Path, spoil: Callable[[Path], str]) -> None:
    with taken_port() as port:
        (spoiled / ".policyd" / "taken").write_text(str(port))
        says = spoil(spoiled)
        before = keys(spoiled)

        done = run("up", str(spoiled), "--check")

    assert done.returncode == 1, done.stdout + done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert keys(spoiled) == before
    wait_until_none_runs(spoiled)
    assert not (spoiled / ".policyd" / "server.json").exists()


def keys(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / ".policyd" / "ca").iterdir()}
