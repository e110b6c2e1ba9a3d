"""Servers of TCP and TLS and the `tcp` and `tls` rules: what could not hold is refused with its line."""

from __future__ import annotations

import pytest

from policyd.mesh.model import Listener, Port
from policyd.spiffe import SpiffeId
from tests.mesh.sample import meshed, problems

WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80}
  db-v1: {service: db, port: 3306, protocol: tcp, labels: {version: v1}}
gateways:
  edge: {listen: [9000, 9443]}
"""
GATEWAY = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
    - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ["*"]}
    - {port: {number: 9443, name: tls, protocol: TLS}, hosts: ["*.example.com"], tls: {mode: PASSTHROUGH}}
"""
ROUTES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db}
spec:
  hosts: [db.example.com]
  gateways: [edge]
  tls:
    - match: [{port: 9443, sniHosts: [db.example.com]}]
      route: [{destination: {host: db}}]
  tcp:
    - match: [{port: 9000, destinationSubnets: [192.0.2.0/24]}]
      route: [{destination: {host: db}, weight: 80}, {destination: {host: db}, weight: 20}]
"""
IN_MESH = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db}
spec:
  hosts: [db]
  tcp:
    - route: [{destination: {host: db}}]
"""
ENTRY = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out}
spec:
  hosts: [out.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]
  resolution: DNS
"""


def folder(gateway: str = GATEWAY, routes: str = ROUTES) -> dict[str, str]:
    return {
        "workloads.yaml": WORKLOADS,
        "mesh/entry.yaml": ENTRY,
        "mesh/gateway.yaml": gateway,
        "mesh/routes.yaml": routes,
    }


def test_connections_at_a_gateway_are_asked_about_under_a_name_of_their_own() -> None:
    mesh = meshed(folder())
    edge = SpiffeId.workload("cluster.local", "default", "edge")

    assert [one for one in mesh.listeners.values() if one.side == "gateway"] == [
        Listener(
            f"edge/gateway/{port}/connections",
            "gateway",
            "edge",
            edge,
            "edge.default",
            port,
            verifies_peers=False,
            protocol="tcp",
        )
        for port in (9000, 9443)
    ]
    assert mesh.services["edge.default"].ports == (Port(9000, "tcp", "tcp"), Port(9443, "tcp", "tcp"))


def test_a_port_with_both_has_both_names() -> None:
    https = GATEWAY + (
        "    - {port: {number: 9443, name: web, protocol: HTTPS}, hosts: [web.example.org],"
        " tls: {mode: SIMPLE, credentialName: web}}\n"
    )
    names = [name for name, one in meshed(folder(https)).listeners.items() if one.side == "gateway"]

    assert names == ["edge/gateway/9000/connections", "edge/gateway/9443", "edge/gateway/9443/connections"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("number: 9443", "number: 9000", "8: port 9000 of `edge` is for plain connections and TLS at once, see"),
        (
            "9443, name: tls, protocol: TLS}, hosts: ['*.example.com'], tls: {mode: PASSTHROUGH}",
            "9000, name: other, protocol: TCP}, hosts: [a.example]",
            "8: the connections of port 9000 of `edge` are a server's in `default/edge` already",
        ),
        ("mode: PASSTHROUGH", "mode: PASSTHROUGH, credentialName: a", "`credentialName` means nothing with"),
        ("tls: {mode: PASSTHROUGH}", "name: x", "8: `spec.servers[1]`: `TLS` needs a certificate; give `tls`"),
        ("protocol: TLS", "protocol: TCP", "`TCP` has no names to go by; write `TLS`, or remove `tls`"),
        ("protocol: TCP}", "protocol: TCP}, tls: {httpsRedirect: true}", "`httpsRedirect` is for servers in plain"),
        ("protocol: TLS", "protocol: HTTP2", "`HTTP2` is plain text; write `HTTPS`, or remove `tls.mode`"),
    ],
)
def test_a_server_that_cannot_be_is_refused(old: str, new: str, problem: str) -> None:
    text = GATEWAY.replace('"*.example.com"', "'*.example.com'")
    assert old in text

    assert any(problem in one for one in problems(folder(text.replace(old, new))))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "sniHosts: [db.example.com]",
            "sniHosts: [db.example.org]",
            "8: the name `db.example.org` is none of the VirtualService's hosts; add it to `spec.hosts`",
        ),
        (
            "[192.0.2.0/24]",
            "[192.0.2.0/33]",
            "11: `spec.tcp[0].match[0].destinationSubnets[0]`: `192.0.2.0/33` is no address or range; "
            "write one, as in `192.0.2.0/24`",
        ),
        (
            "weight: 80}, {destination: {host: db}, weight: 20",
            "weight: 0}, {destination: {host: db}, weight: 0",
            "11: `spec.tcp[0]`: the weights add up to 0; give one destination a `weight`",
        ),
        (
            "{host: db}, weight: 20",
            "{host: web}, weight: 20",
            "12: `web` speaks HTTP there, to which no `tcp` rule leads; write `http` rules for it",
        ),
        (
            "{host: db}, weight: 20",
            "{host: db, subset: v9}, weight: 20",
            "12: callers in `default` know no subset `v9` of the service `db.default`; "
            "declare it in a DestinationRule of that host",
        ),
        (
            "  tls:",
            "  http:\n    - route: [{destination: {host: web}}]\n  tls:",
            "7: none of its gateways has a server for requests (HTTP or HTTPS); add one, or remove these rules",
        ),
        ("route: [{destination: {host: db}}]", "route: []", "9: `spec.tls[0].route` must have at least 1 entries"),
        ("[{port: 9443, sniHosts: [db.example.com]}]", "[{port: 9443}]", "8: `spec.tls[0].match[0].sniHosts` is"),
    ],
)
def test_a_rule_that_could_never_hold_is_refused(old: str, new: str, problem: str) -> None:
    assert old in ROUTES
    found = problems(folder(routes=ROUTES.replace(old, new)))

    assert any(one.startswith(f"mesh/routes.yaml:{problem}") for one in found), found


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "- route:",
            "- match: [{destinationSubnets: [192.0.2.1]}]\n      route:",
            "7: connections between sidecars are asked for by name, and have no address to go by; "
            "remove it, or say `gateways` in this `match`",
        ),
        (
            "hosts: [db]",
            "hosts: [web]",
            "5: the host `web` answers requests only, for which there are no `tcp` and `tls` rules; write `http` rules",
        ),
        (
            "- route: [",
            "- route: [{destination: {host: out.example.com, port: {number: 443}}, weight: 1}, ",
            "7: a rule leads connections into the mesh or outside, never both; make two rules of it",
        ),
        (
            "{host: db}}",
            "{host: out.example.com, port: {number: 80}}}",
            "7: port 80 of `out.example.com` speaks HTTP, to which no connections are led; write `http` rules for it",
        ),
        ("  hosts: [db]\n", "", "4: `spec`: a delegate has `http` rules only; add `hosts`, or remove the others"),
        ("  tcp:\n    - route: [{destination: {host: db}}]", "  http: []", "4: `spec`: it has no rules; add `http`"),
    ],
)
def test_a_rule_in_sidecars_that_could_never_hold_is_refused(old: str, new: str, problem: str) -> None:
    assert old in IN_MESH
    found = problems(folder(routes=IN_MESH.replace(old, new)))

    assert any(one.startswith(f"mesh/routes.yaml:{problem}") for one in found), found
