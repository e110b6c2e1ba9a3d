"""Connections to a service that speaks TCP, through real sidecars: decided once each, before a byte passes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import meshed
from tests.e2e.wire import Echo, Echoing, https, issue, records
from tests.ports import free_port

pytestmark = pytest.mark.e2e

POLICY = """\
@id("echo-from-web")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"connect",
  resource == Service::"echo.default");
"""


WORKLOADS = """\
workloads:
  web-v1: {{service: web, port: 80}}
  api-v1: {{service: api, port: 80}}
  echo-v1: {{service: echo, port: 7000, protocol: tcp, appPort: {}}}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Echoing]:
    echo = Echo(free_port())
    files = {"workloads.yaml": WORKLOADS.format(echo.port), "policies/echo.cedar": POLICY}
    with meshed(tmp_path_factory.mktemp("tcp") / "mesh", files) as mesh, echo.served():
        yield Echoing(mesh, echo)


def test_who_is_permitted_connects_and_it_is_on_record(world: Echoing) -> None:
    assert world.connect("web-v1") == (200, b"speaks first, hello world\r\n\r\n")
    record = records(world.mesh.directory, resource='Service::"echo.default"')[-1]
    assert (record["decision"], record["principal"], record["action"], record["reasons"], record["proxy"]) == (
        "allow",
        'Workload::"spiffe://cluster.local/ns/default/sa/web"',
        'Action::"connect"',
        ["echo-from-web"],
        "echo-v1",
    )


def test_who_is_not_gets_no_byte_through(world: Echoing) -> None:
    before = len(world.echo.seen)
    assert world.connect("api-v1") == (403, b"")
    assert len(world.echo.seen) == before
    record = records(world.mesh.directory, resource='Service::"echo.default"', decision="deny")[-1]
    assert record["principal"] == 'Workload::"spiffe://cluster.local/ns/default/sa/api"'


def test_a_tunnel_to_what_answers_requests_takes_requests_only(world: Echoing) -> None:
    status, answer = world.connect("web-v1", "api:80")

    assert (status, answer.split(b"\r\n")[0]) == (200, b"HTTP/1.1 400 Bad Request")


def test_no_tunnel_leads_to_a_port_that_is_not_there(world: Echoing) -> None:
    assert world.connect("web-v1", "echo:7001")[0] == 502


def test_requests_do_not_reach_it(world: Echoing) -> None:
    with world.mesh.client("web-v1") as client:
        assert client.get("http://echo:7000/").status_code == 404


def test_a_certificate_by_hand_is_decided_like_any_other(world: Echoing, tmp_path: Path) -> None:
    before = len(world.echo.seen)
    identity = issue(world.mesh.directory, "api", tmp_path / "api")
    port = world.mesh.place("echo-v1")["inbound_port"]
    assert https(port, identity, "/").status == 404
    assert https(port, identity, "echo:7000", method="CONNECT").status == 403
    assert len(world.echo.seen) == before
