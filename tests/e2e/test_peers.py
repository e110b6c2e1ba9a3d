"""Mutual TLS, both, or plain text, through real Envoys; whoever comes in plain text is nobody."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.ca.machines import Machines
from tests.ca.samples import a_key
from tests.e2e.conftest import PROGRAM, RunningMesh, down, up
from tests.e2e.terminal import wait_until
from tests.e2e.wire import Identity, Refused, https, issue, policyd
from tests.ports import free_port
from tests.whole import put
from tests.xds.envoy_process import EnvoyProcess, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("peers")]

WORKLOADS = """\
workloads:
  web-v1:    {service: web, port: 80, command: [python, echo.py]}
  strict-v1: {service: strict, port: 80, command: [python, echo.py]}
  both-v1:   {service: both, port: 80, command: [python, echo.py]}
  plain-v1:  {service: plain, port: 80, command: [python, echo.py]}
  mixed-v1:  {service: mixed, port: 80, command: [python, echo.py]}
  mixed-v2:  {service: mixed, port: 80, command: [python, echo.py], labels: {version: v2}}
  batch-v1:  {service: batch, port: 80}
"""
SPIFFE = "spiffe://cluster.local/ns/default/sa/"
BATCH, STRICT = SPIFFE + "batch", SPIFFE + "strict"
TYPES = "type.googleapis.com/envoy.extensions"
POLICIES = """\
@id("open") permit (principal, action in Action::"http", resource) when { context.request.path == "/open" };
@id("web")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action in Action::"http", resource);
@id("batch")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/batch", action in Action::"http", resource)
when { context.request.path == "/batch" };
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
    (directory / "policyd.yaml").write_text("ca: {evidence: {machineRootsFile: machines.pem}}\n")
    machines, key = Machines(datetime.now(UTC)), a_key()
    (directory / "machines.pem").write_bytes(machines.root.public_bytes(Encoding.PEM))
    (directory.parent / "machine.pem").write_bytes(machines.certify(key).public_bytes(Encoding.PEM))
    (directory.parent / "machine.key").touch(0o600)
    (directory.parent / "machine.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
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
    assert mesh.says("authorize", "anonymous", "GET", "http://both/open")["decision"] == "allow"


def test_a_migration_ends_plain_text_and_fails_no_request_of_the_mesh(mesh: RunningMesh) -> None:
    file = mesh.directory / "mesh" / "peers.yaml"
    statuses = []

    def is_strict() -> bool:
        with mesh.client("web-v1", patient=False) as web:
            statuses.append(web.get("http://both/me").status_code)
        try:
            plainly(mesh, "both-v1", "/open")
        except httpx.TransportError:
            return True
        return False

    put(file, PEERS.replace("PERMISSIVE", "STRICT"))
    wait_until(is_strict, 20, lambda: json.dumps(mesh.status()["refused"]))
    put(file, PEERS)
    wait_until(lambda: not is_strict(), 20, lambda: json.dumps(mesh.status()["refused"]))
    assert set(statuses) == {200}


# ---- a workload without an agent, whose Envoy is somebody else's


@contextmanager
def keeping(mesh: RunningMesh, folder: Path, roots: Path) -> Iterator[subprocess.Popen[str]]:
    """`policyd ca obtain --keep` for `batch`, into `folder`/identity; what it says is in `folder`/said."""
    papers = mesh.directory.parent
    evidence = ("--certificate", papers / "machine.pem", "--key", papers / "machine.key")
    there = ("--server", mesh.status()["attestation_address"], "--roots", roots)
    done = policyd(mesh.directory, "ca", "entry", "create", BATCH, "--selector", "x509:dns:db1.example")
    assert done.returncode == 0, done.stderr
    command = [PROGRAM, "ca", "obtain", BATCH, *map(str, there + evidence), "--out", str(folder / "identity"), "--keep"]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [*command, "--run", f"cp {folder / 'identity' / 'certificate.pem'} {folder / 'told'}"],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, text=True,
        )  # fmt: skip
    try:
        yield process
        process.terminate()
        assert process.wait(20) == 0, (folder / "said").read_text()
    finally:
        process.kill()
        process.wait()


def an_envoy(admin: Path, port: int, to: int, identity: Path) -> dict[str, Any]:
    """A plain Envoy that asks `strict` at the port `to` as who lies in `identity`, and heeds what changes there."""
    watched = {"watched_directory": {"path": str(identity)}}
    files = {
        "certificate": {
            "tls_certificate": {
                "certificate_chain": {"filename": str(identity / "certificate.pem")},
                "private_key": {"filename": str(identity / "key.pem")}, **watched,
            }
        },
        "roots": {
            "validation_context": {
                "trusted_ca": {"filename": str(identity / "roots.pem")}, **watched,
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": STRICT}}],
            }
        },
    }  # fmt: skip
    for name, body in files.items():
        secret = {"@type": f"{TYPES}.transport_sockets.tls.v3.Secret", "name": name, **body}
        (admin.parent / f"{name}.json").write_text(json.dumps({"resources": [secret]}))

    def sds(name: str) -> dict[str, Any]:
        return {"name": name, "sds_config": {"path_config_source": {"path": str(admin.parent / f"{name}.json")}}}

    context = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificate_sds_secret_configs": [sds("certificate")],
            "validation_context_sds_secret_config": sds("roots"),
        },
    }
    cluster = {
        "name": "strict", "type": "STATIC",
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context},
        "load_assignment": {"cluster_name": "strict", "endpoints": [{"lb_endpoints": [_endpoint(to)]}]},
    }  # fmt: skip
    routes = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "strict"}}]}]
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "out",
        "route_config": {"virtual_hosts": routes},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}],
    }  # fmt: skip
    listener = {
        "name": "out", **_address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }  # fmt: skip
    return {
        "node": {"id": "own", "cluster": "own"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _address(port: int) -> dict[str, Any]:
    return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}


def _endpoint(port: int) -> dict[str, Any]:
    return {"endpoint": _address(port)}


async def test_a_workload_without_an_agent_calls_by_an_envoy_of_its_own_whose_certificate_is_kept_fresh(
    mesh: RunningMesh, identity: Identity, tmp_path: Path
) -> None:
    kept, port, inbound = tmp_path / "identity", free_port(), mesh.place("strict-v1")["inbound_port"]
    with keeping(mesh, tmp_path, identity.roots) as process:
        await eventually(lambda: _wrote(tmp_path, 1), "a first certificate")
        envoy = EnvoyProcess("own")
        envoy.use(an_envoy(envoy.admin, port, inbound, kept))
        async with envoy, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            await eventually(envoy.live, "its Envoy")
            allowed, denied = await client.get("/batch"), await client.get("/me")
            assert (allowed.status_code, denied.status_code) == (200, 403)
            assert mesh.record(denied.headers["x-policyd-decision-id"])["principal"] == f'Workload::"{BATCH}"'

            async def renewed() -> bool:
                assert (await client.get("/batch")).status_code == 200
                return f"{_serial(kept):x}" in await envoy.ask("/certs")

            first = _serial(kept)
            process.send_signal(signal.SIGHUP)
            await eventually(lambda: _wrote(tmp_path, 2), "another certificate")
            assert _serial(kept) != first
            await eventually(renewed, "the new certificate in Envoy")
            assert "key_rotation_failed: 0" in await envoy.ask("/stats?filter=key_rotation_failed")
    assert _serial(tmp_path, "told") == _serial(kept)


async def _wrote(folder: Path, times: int) -> bool:
    said = (folder / "said").read_text()
    return said.count('"command.done"') >= times


def _serial(folder: Path, name: str = "certificate.pem") -> int:
    return x509.load_pem_x509_certificates((folder / name).read_bytes())[0].serial_number
