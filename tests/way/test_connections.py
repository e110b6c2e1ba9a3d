"""The ways of connections: tunnels between sidecars, through gateways, to the outside, and into a sidecar itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policyd.offline.loaded import NOWHERE, load_texts
from policyd.reload.live import Live, shipped_schemas
from policyd.sources.files import Folder, digest
from policyd.way.entry import way_of
from policyd.way.follow import Follower
from policyd.way.text import lines

MESH: Mapping[str, str] = {
    "workloads.yaml": """\
workloads:
  web: {service: web, port: 80}
  db: {service: db, port: 5432, protocol: tcp}
gateways:
  edge: {listen: [8000, 5432, 9443]}
""",
    "policies/all.cedar": """\
@id("db")
permit (principal, action == Action::"connect", resource == Service::"db.default");
@id("edge")
permit (principal, action, resource == Service::"edge.default");
@id("far")
permit (principal, action == Action::"connect", resource == Host::"far.example.com");
""",
    "mesh/all.yaml": """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
    - {port: {number: 8000, name: http, protocol: HTTP}, hosts: ["*"]}
    - {port: {number: 5432, name: tcp, protocol: TCP}, hosts: ["*"]}
    - {port: {number: 9443, name: tls, protocol: TLS}, hosts: [db.example.com], tls: {mode: PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: at-edge}
spec:
  hosts: ["*"]
  gateways: [edge]
  tcp: [{match: [{port: 5432}], route: [{destination: {host: db}}]}]
  tls: [{match: [{port: 9443, sniHosts: [db.example.com]}], route: [{destination: {host: db}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: in-mesh}
spec:
  hosts: [db]
  tcp: [{route: [{destination: {host: db}}]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: far}
spec:
  hosts: [far.example.com]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.7}]
""",
}
SA = "spiffe://cluster.local/ns/default/sa"
THROUGH_EDGE = f"""\
edge is asked for CONNECT {{asked}}
  100 %     to edge/gateway/{{port}}/connections
    as        CONNECT {{number}}.edge.default:{{port}}
    at        a listener inside
      decision  allow for anonymous: permitted by `edge` (policies/all.cedar:3)
      route     VirtualService default/at-edge, rule 1 `{{section}}` (mesh/all.yaml:{{line}})
      patience  no timeout, no retries
      100 %     to db.default:5432
        over      mutual TLS with {SA}/db
        at        db
        db
          decision  allow for {SA}/edge: permitted by `db` (policies/all.cedar:1)
          to        the application

it gets through"""


@pytest.fixture(scope="module")
def live() -> Live:
    folder = Folder(Path("mesh"), MESH, digest(MESH))
    return load_texts(replace(folder, credentials={}), shipped_schemas())


def told(live: Live, request: str) -> str:
    follower = Follower(live, NOWHERE, datetime(2026, 11, 28, tzinfo=UTC))
    return "\n".join(lines(way_of(request, follower, live.mesh, {}), live.mesh))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param("web CONNECT db:5432", f"""\
web is asked for CONNECT db:5432
  route     VirtualService default/in-mesh, rule 1 `tcp` (mesh/all.yaml:25)
  patience  no timeout, no retries
  100 %     to db.default:5432
    over      mutual TLS with {SA}/db
    at        db
    db
      decision  allow for {SA}/web: permitted by `db` (policies/all.cedar:1)
      to        the application

it gets through""", id="to a service that speaks TCP"),
        pytest.param("web CONNECT web:80", """\
web is asked for CONNECT web:80
  route     no rule of a VirtualService
  patience  no timeout, no retries
  100 %     to inner
    at        the sidecar itself, which routes what comes in it as if it were asked plainly

it gets through""", id="to one that answers requests"),
        pytest.param(
            "anonymous CONNECT edge:5432",
            THROUGH_EDGE.format(asked="edge:5432", port=5432, number=1, section="tcp", line=17),
            id="through a gateway",
        ),
        pytest.param(
            "anonymous CONNECT db.example.com:9443",
            THROUGH_EDGE.format(asked="db.example.com:9443", port=9443, number=2, section="tls", line=18),
            id="through a gateway, by the name that TLS asks for",
        ),
        pytest.param("web GET http://db:5432/", """\
web is asked for GET http://db:5432/
  route     no rule of a VirtualService
  answer    404

it leads nowhere""", id="a request to what speaks TCP"),
        pytest.param("anonymous GET http://x.example.com/", """\
edge is asked for GET http://x.example.com/
  decision  allow for anonymous: permitted by `edge` (policies/all.cedar:3)
  route     no rule of a VirtualService
  answer    404: no route of this gateway matches

it leads nowhere""", id="a gateway without rules for requests"),
    ],
)  # fmt: skip
def test_the_way_of_a_connection(live: Live, request_: str, expected: str) -> None:
    assert told(live, request_) == expected


def test_a_connection_to_the_outside_is_decided_at_the_own_sidecar(live: Live) -> None:
    assert (
        told(live, "web CONNECT far.example.com:443")
        == f"""\
web is asked for CONNECT far.example.com:443
  decision  allow for {SA}/web: permitted by `far` (policies/all.cedar:5)
  route     no rule of a VirtualService
  patience  no timeout, no retries
  100 %     to far.example.com:443
    over      nothing: its bytes are passed on as they are
    at        192.0.2.7:443

it gets through"""
    )
    assert told(live, "db CONNECT near.example.com:443").endswith("\n\nit leads nowhere")
