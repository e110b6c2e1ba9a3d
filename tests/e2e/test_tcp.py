"""Connections to a service that speaks TCP, through real sidecars: decided once each, before a byte passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.wire import Echo, https, issue, records, tunnelled
from tests.ports import free_port

pytestmark = pytest.mark.e2e

POLICY = """\
@id("echo-from-web")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"connect",
  resource == Service::"echo.default");
"""


@dataclass(frozen=True)
class World:
    """A mesh with an echo in it."""

    mesh: RunningMesh
    echo: Echo

    def connect(self, by: str, to: str = "echo:7000") -> tuple[int, bytes]:
        """The status of the tunnel, and what comes back through it: nothing where it is closed."""
        return tunnelled(self.mesh, by, to)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("tcp") / "mesh"
    (directory / "policies").mkdir(parents=True)
    echo = Echo(free_port())
    (directory / "workloads.yaml").write_text(
        "workloads:\n  web-v1: {service: web, port: 80}\n  api-v1: {service: api, port: 80}\n"
        f"  echo-v1: {{service: echo, port: 7000, protocol: tcp, appPort: {echo.port}}}\n"
    )
    (directory / "policies/echo.cedar").write_text(POLICY)
    try:
        mesh = up(directory)
        with echo.served():
            yield World(mesh, echo)
    finally:
        down(directory)


def test_who_is_permitted_connects_and_it_is_on_record(world: World) -> None:
    assert world.connect("web-v1") == (200, b"speaks first, hello world\r\n\r\n")
    record = records(world.mesh.directory, resource='Service::"echo.default"')[-1]
    assert (record["decision"], record["principal"], record["action"], record["reasons"], record["proxy"]) == (
        "allow",
        'Workload::"spiffe://cluster.local/ns/default/sa/web"',
        'Action::"connect"',
        ["echo-from-web"],
        "echo-v1",
    )


def test_who_is_not_gets_no_byte_through(world: World) -> None:
    before = len(world.echo.seen)
    assert world.connect("api-v1") == (403, b"")
    assert len(world.echo.seen) == before
    record = records(world.mesh.directory, resource='Service::"echo.default"', decision="deny")[-1]
    assert record["principal"] == 'Workload::"spiffe://cluster.local/ns/default/sa/api"'


def test_a_tunnel_to_what_answers_requests_takes_requests_only(world: World) -> None:
    status, answer = world.connect("web-v1", "api:80")

    assert (status, answer.split(b"\r\n")[0]) == (200, b"HTTP/1.1 400 Bad Request")


def test_no_tunnel_leads_to_a_port_that_is_not_there(world: World) -> None:
    assert world.connect("web-v1", "echo:7001")[0] == 502


def test_requests_do_not_reach_it(world: World) -> None:
    with world.mesh.client("web-v1") as client:
        assert client.get("http://echo:7000/").status_code == 404


def test_a_certificate_by_hand_is_decided_like_any_other(world: World, tmp_path: Path) -> None:
    before = len(world.echo.seen)
    identity = issue(world.mesh.directory, "api", tmp_path / "api")
    port = world.mesh.place("echo-v1")["inbound_port"]
    assert https(port, identity, "/").status == 404
    assert https(port, identity, "echo:7000", method="CONNECT").status == 403
    assert len(world.echo.seen) == before
