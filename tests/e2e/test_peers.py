"""Mutual TLS, both, or plain text, through real Envoys; whoever comes in plain text is nobody."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.terminal import wait_until
from tests.e2e.wire import Identity, Refused, https, issue

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("peers")]

WORKLOADS = """\
workloads:
  web-v1:    {service: web, port: 80, command: [python, echo.py]}
  strict-v1: {service: strict, port: 80, command: [python, echo.py]}
  both-v1:   {service: both, port: 80, command: [python, echo.py]}
  plain-v1:  {service: plain, port: 80, command: [python, echo.py]}
  mixed-v1:  {service: mixed, port: 80, command: [python, echo.py]}
  mixed-v2:  {service: mixed, port: 80, command: [python, echo.py], labels: {version: v2}}
"""
POLICIES = """\
@id("open") permit (principal, action in Action::"http", resource) when { context.request.path == "/open" };
@id("web")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action in Action::"http", resource);
"""


def peers(name: str, selector: str, more: str) -> str:
    return f"""\
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}}}
spec: {{selector: {{matchLabels: {{{selector}}}}}, {more}}}
"""


PEERS = (
    peers("both", "app: both", "mtls: {mode: PERMISSIVE}")
    + peers("plain", "app: plain", "portLevelMtls: {80: {mode: DISABLE}}")
    + peers("mixed", "version: v2", "mtls: {mode: DISABLE}")
)


@pytest.fixture(scope="module")
def mesh(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A service for each mode, and one whose two instances differ."""
    directory = tmp_path_factory.mktemp("peers") / "mesh"
    for folder in ("mesh", "policies"):
        (directory / folder).mkdir(parents=True)
    shutil.copy(root / "tests" / "e2e" / "apps" / "echo.py", directory)
    (directory / "workloads.yaml").write_text(WORKLOADS)
    (directory / "policies" / "all.cedar").write_text(POLICIES)
    (directory / "mesh" / "peers.yaml").write_text(PEERS)
    try:
        yield up(directory)
    finally:
        down(directory)


@pytest.fixture(scope="module")
def identity(mesh: RunningMesh, tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """The papers of `web`."""
    return issue(mesh.directory, "web-v1", tmp_path_factory.mktemp("papers") / "web")


def plainly(mesh: RunningMesh, instance: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """Ask a sidecar in plain text, from outside the mesh."""
    return httpx.get(f"http://127.0.0.1:{mesh.place(instance)['inbound_port']}{path}", headers=headers, timeout=10)


@pytest.mark.parametrize(
    ("host", "status"), [("strict", 200), ("both", 200), ("plain", 403)], ids=["STRICT", "PERMISSIVE", "DISABLE"]
)
def test_the_mesh_uses_mutual_tls_wherever_it_is_taken(mesh: RunningMesh, host: str, status: int) -> None:
    with mesh.client("web-v1") as web:
        assert web.get(f"http://{host}/me").status_code == status
        assert web.get(f"http://{host}/open").status_code == 200


def test_of_a_service_each_instance_is_spoken_to_as_it_wants(mesh: RunningMesh) -> None:
    with mesh.client("web-v1") as web:
        replies = [web.get("http://mixed/open") for _ in range(40)]

    assert {reply.status_code for reply in replies} == {200}
    assert {reply.text for reply in replies} == {"mixed-v1", "mixed-v2"}


def test_permissive_takes_plain_text_of_nobody(mesh: RunningMesh) -> None:
    assert (plainly(mesh, "both-v1", "/open").status_code, plainly(mesh, "both-v1", "/open").text) == (200, "both-v1")

    denied = plainly(mesh, "both-v1", "/me")
    assert denied.status_code == 403
    record = mesh.record(denied.headers["x-policyd-decision-id"])
    assert (record["principal"], record["proxy"]) == ('Unauthenticated::"anonymous"', "both-v1")


def test_no_header_makes_plain_text_a_workload(mesh: RunningMesh) -> None:
    claim = "By=spiffe://cluster.local/ns/default/sa/both;URI=spiffe://cluster.local/ns/default/sa/web"

    assert plainly(mesh, "both-v1", "/me", {"x-forwarded-client-cert": claim}).status_code == 403


def test_permissive_knows_who_shows_a_certificate(mesh: RunningMesh, identity: Identity) -> None:
    assert https(mesh.place("both-v1")["inbound_port"], identity, "/me").status == 200


def test_strict_hears_no_plain_text(mesh: RunningMesh) -> None:
    with pytest.raises(httpx.TransportError):
        plainly(mesh, "strict-v1", "/open")


def test_disabled_speaks_no_tls(mesh: RunningMesh, identity: Identity) -> None:
    with pytest.raises(Refused):
        https(mesh.place("plain-v1")["inbound_port"], identity, "/open")


def test_offline_callers_are_known_as_on_the_wire(mesh: RunningMesh) -> None:
    assert mesh.says("authorize", "web", "GET", "http://both/me")["decision"] == "allow"
    assert mesh.says("authorize", "anonymous", "GET", "http://both/open")["decision"] == "allow"


def test_a_migration_ends_plain_text_and_fails_no_request_of_the_mesh(mesh: RunningMesh) -> None:
    file = mesh.directory / "mesh" / "peers.yaml"
    statuses = []

    def is_strict() -> bool:
        with mesh.client("web-v1") as web:
            statuses.append(web.get("http://both/me").status_code)
        try:
            plainly(mesh, "both-v1", "/open")
        except httpx.TransportError:
            return True
        return False

    file.write_text(PEERS.replace("PERMISSIVE", "STRICT"))
    wait_until(is_strict, 20, lambda: json.dumps(mesh.status()["refused"]))
    file.write_text(PEERS)
    wait_until(lambda: not is_strict(), 20, lambda: json.dumps(mesh.status()["refused"]))
    assert set(statuses) == {200}
