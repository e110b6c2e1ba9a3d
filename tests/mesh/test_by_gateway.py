"""Rules that lead sidecars to an egress gateway: only where both sides could show their identity."""

from __future__ import annotations

import pytest

from policyd.mesh.model import Listener
from policyd.spiffe import SpiffeId
from tests.mesh.sample import meshed, problems

WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80}
gateways:
  out: {listen: [80, 443, 444, 445], labels: {istio: egressgateway}}
"""
ENTRY = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: books}
spec:
  hosts: [books.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]
  resolution: DNS
"""
GATEWAY = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: out}
spec:
  selector: {istio: egressgateway}
  servers:
    - {port: {number: 80, name: http, protocol: HTTP}, hosts: [books.example.com]}
    - {port: {number: 443, name: tls, protocol: TLS}, hosts: [books.example.com], tls: {mode: PASSTHROUGH}}
    - {port: {number: 444, name: https, protocol: HTTPS}, hosts: [a.example], tls: {mode: ISTIO_MUTUAL}}
    - {port: {number: 445, name: tcp, protocol: TCP}, hosts: ["*"]}
"""
ROUTES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: books}
spec:
  hosts: [books.example.com]
  gateways: [out, mesh]
  http:
    - match: [{gateways: [mesh], port: 80}]
      route: [{destination: {host: out, port: {number: 80}}}]
    - match: [{gateways: [out], port: 80}]
      route: [{destination: {host: books.example.com, port: {number: 80}}}]
  tls:
    - match: [{gateways: [mesh], sniHosts: [books.example.com]}]
      route: [{destination: {host: out, port: {number: 443}}}]
    - match: [{gateways: [out], sniHosts: [books.example.com]}]
      route: [{destination: {host: books.example.com, port: {number: 443}}}]
"""


def folder(routes: str = ROUTES, gateway: str = GATEWAY) -> dict[str, str]:
    return {
        "workloads.yaml": WORKLOADS,
        "mesh/books.yaml": ENTRY,
        "mesh/gateway.yaml": gateway,
        "mesh/routes.yaml": routes,
    }


def test_workloads_are_known_on_the_ports_to_which_they_are_led_and_on_those_that_are_for_them() -> None:
    mesh = meshed(folder())
    own = ("gateway", "out", SpiffeId.workload("cluster.local", "default", "out"), "out.default")

    assert mesh.peers_at == {("out", 80), ("out", 443), ("out", 444)}
    assert [one for one in mesh.listeners.values() if one.verifies_peers and one.instance == "out"] == [
        Listener(name, *own, port, verifies_peers=True, protocol="tcp" if "connections" in name else "http")
        for port in (80, 443, 444)
        for name in (f"out/gateway/{port}/peers", f"out/gateway/{port}/peers/connections")
    ]
    # strangers have no listener where everything is for workloads
    assert [one.name for one in mesh.listeners.values() if one.side == "gateway" and not one.verifies_peers] == [
        "out/gateway/80",
        "out/gateway/443/connections",
        "out/gateway/445/connections",
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "[{gateways: [mesh], port: 80}]",
            "[{port: 80}]",
            "9: the destination `out` is a gateway; route to what it serves",
        ),
        (
            "[{gateways: [mesh], port: 80}]",
            "[{gateways: [mesh, out]}]",
            "9: the destination `out` is a gateway; route to what it serves",
        ),
        (
            "{host: out, port: {number: 80}}",
            "{host: out}",
            "9: the port of the gateway `out` is missing or none of its own; it has 80, 443, 444, 445",
        ),
        (
            "{host: out, port: {number: 80}}",
            "{host: out, port: {number: 443}}",
            "9: the gateway `out` has no server for `http` rules of sidecars on port 443; "
            "give it `tls: {mode: ISTIO_MUTUAL}`",
        ),
        (
            "{host: out, port: {number: 443}}",
            "{host: out, port: {number: 445}}",
            "14: the gateway `out` has no server for `tls` rules of sidecars on port 445; "
            "give it `tls: {mode: ISTIO_MUTUAL}`",
        ),
        (
            "{host: out, port: {number: 80}}",
            "{host: out, port: {number: 80}, subset: x}",
            "9: callers in `default` know no subset `x` of the service `out.default`; "
            "declare it in a DestinationRule of that host",
        ),
        (
            "      route: [{destination: {host: out, port: {number: 80}}}]",
            "      mirror: {host: out, port: {number: 80}}\n      route: [{destination: {host: web}}]",
            "9: the destination `out` is a gateway; route to what it serves",
        ),
    ],
)
def test_a_rule_that_leads_to_a_gateway_the_wrong_way_is_refused(old: str, new: str, problem: str) -> None:
    assert old in ROUTES
    assert problems(folder(ROUTES.replace(old, new, 1))) == [f"mesh/routes.yaml:{problem}"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("mode: ISTIO_MUTUAL", "mode: ISTIO_MUTUAL, credentialName: a", "`credentialName` means nothing with"),
        ("https, protocol: HTTPS}, hosts: [a.example]", "http2, protocol: HTTP2}, hosts: [a.example]", "is plain text"),
    ],
)
def test_a_server_for_workloads_has_nothing_else_to_show(old: str, new: str, problem: str) -> None:
    assert old in GATEWAY
    assert any(problem in one for one in problems(folder(gateway=GATEWAY.replace(old, new))))
