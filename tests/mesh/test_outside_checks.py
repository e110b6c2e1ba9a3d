"""Rules that lead outside: what cannot be decided or cannot hold there is refused with its line."""

from __future__ import annotations

import pytest

from tests.mesh.sample import GOOD, meshed, problems

ENTRIES = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: books}
spec:
  hosts: [books.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: https, protocol: HTTPS}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: dynamic}
spec:
  hosts: [dynamic.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: NONE
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: far, namespace: far}
spec:
  hosts: [far.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
  exportTo: ["."]
"""
ROUTE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: out}
spec:
  hosts: [books.example.com]
  http:
    - route: [{destination: {host: books.example.com, port: {number: 443}}}]
"""
RULE = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: out}
spec:
  host: books.example.com
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    portLevelSettings:
      - {port: {number: 443}, tls: {mode: SIMPLE}}
"""


def folder(route: str = ROUTE, rule: str = RULE) -> dict[str, str]:
    return {**GOOD, "mesh/entries.yaml": ENTRIES, "mesh/out.yaml": route, "mesh/rule.yaml": rule}


def test_istios_way_of_opening_tls_is_good() -> None:
    mesh = meshed(folder())
    caller = mesh.caller(mesh.instances["web-v1"])
    tls = mesh.outside_policy(caller, "books.example.com", 443).tls
    assert tls is not None
    assert tls.mode == "SIMPLE"
    assert mesh.outside_policy(caller, "books.example.com", 80).tls is None


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "- route: [",
            "- mirror: {host: books.example.com, port: {number: 80}}\n      route: [",
            "7: a copy of each request would leave to `books.example.com` undecided; "
            "route to it by `route`, in a VirtualService that has `hosts`",
        ),
        (
            "destination: {host: books.example.com, port: {number: 443}}",
            "destination: {host: far.example.com}",
            "7: the host `far.example.com` is not exported to `default`; see `exportTo` of its ServiceEntry",
        ),
        (
            "destination: {host: books.example.com, port: {number: 443}}",
            "destination: {host: dynamic.example.com}",
            "7: `dynamic.example.com` is looked up by the name that is asked for; set its `resolution` to DNS",
        ),
        (
            "number: 443}}",
            "number: 443}, subset: v1}",
            "7: callers in `default` know no subset `v1` of the host `books.example.com`; declare it in a "
            "DestinationRule of that host",
        ),
        (
            ", port: {number: 443}",
            "",
            "7: the port of destination `books.example.com` is missing or none of its own; "
            "it has 80 (HTTP), 443 (HTTPS)",
        ),
    ],
)
def test_a_route_that_leads_outside_the_wrong_way_is_refused(old: str, new: str, problem: str) -> None:
    assert old in ROUTE
    assert problems(folder(route=ROUTE.replace(old, new))) == [f"mesh/out.yaml:{problem}"]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (
            "SIMPLE",
            "ISTIO_MUTUAL",
            [
                "mesh/rule.yaml:9: `books.example.com` is outside, and no ServiceEntry says which workloads serve it; "
                "name them in its `subjectAltNames`, as SPIFFE IDs; or write `SIMPLE` or `MUTUAL`",
            ],
        ),
        (
            "  trafficPolicy:",
            "  subsets: [{name: v1, labels: {version: v1}}]\n  trafficPolicy:",
            [
                "mesh/rule.yaml:6: no endpoint of `books.example.com` has the labels of the subset `v1`; compare them "
                "with `endpoints` of its ServiceEntry",
            ],
        ),
        (
            "  trafficPolicy:",
            "  subsets: [{name: v1, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}]\n  trafficPolicy:",
            [
                "mesh/rule.yaml:6: `books.example.com` is outside, and no ServiceEntry says which workloads serve it; "
                "name them in its `subjectAltNames`, as SPIFFE IDs; or write `SIMPLE` or `MUTUAL`",
            ],
        ),
        (
            "{simple: ROUND_ROBIN}",
            "{localityLbSetting: {enabled: true}}",
            [
                "mesh/rule.yaml:7: no endpoint of `books.example.com` has a `locality`; add it in its ServiceEntry, or "
                "remove this",
            ],
        ),
        (
            "host: books.example.com",
            'host: "*.example.com"',
            ["mesh/rule.yaml:7: a host that is looked up as it is asked for has nothing to balance; remove it"],
        ),
        (
            "      - {port",
            "      - {port: {number: 81}, tls: {mode: SIMPLE}}\n      - {port",
            ["mesh/rule.yaml:9: port 81 is none of `books.example.com`; it has 80, 443"],
        ),
        (
            "host: books.example.com",
            "host: boks.example.com",
            [
                "mesh/out.yaml:7: port 443 of `books.example.com` does not speak plain HTTP; "
                "let a DestinationRule open TLS, `tls: {mode: SIMPLE}`, or at gateways a BackendTLSPolicy",
                "mesh/rule.yaml:5: the host `boks.example.com` is no service of the mesh; "
                "name a service, or several as in `*.default.svc.cluster.local`",
            ],
        ),
    ],
)
def test_a_destination_rule_that_cannot_hold_outside_is_refused(old: str, new: str, found: list[str]) -> None:
    assert old in RULE
    assert problems(folder(rule=RULE.replace(old, new))) == found


PROXY = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: proxy}
spec: {hosts: [proxy.example], resolution: DNS, ports: [{number: 3128, name: tcp, protocol: TCP}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: proxy}
spec:
  host: proxy.example
  subsets: [{name: v1, trafficPolicy: {tunnel: {targetHost: far.example, targetPort: 443}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: far}
spec: {hosts: [far.example], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: far}
spec:
  hosts: [far.example]
  tls:
    - match: [{sniHosts: [far.example]}]
      route: [{destination: {host: proxy.example, subset: v1, port: {number: 3128}}}]
"""


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("", "", []),
        ("name: tcp, protocol: TCP", "name: http, protocol: HTTP",
         ["11: `proxy.example` takes requests only, and a tunnel is for connections; declare its port as TCP in its "
          "ServiceEntry, or remove `tunnel`"]),
        ("resolution: DNS", "resolution: NONE",
         ["11: `proxy.example` is looked up as it is asked for, and is no forward proxy; set its `resolution` to DNS, "
          "or remove `tunnel`"]),
        ("number: 3128}}}]", "number: 3128}}, weight: 1}, {destination: {host: far.example}, weight: 1}]",
         ["25: what is led through a forward proxy (`tunnel`) has no shares; keep one destination"]),
    ],
)  # fmt: skip
def test_connections_are_led_through_a_forward_proxy(old: str, new: str, found: list[str]) -> None:
    files = {**GOOD, "mesh/proxy.yaml": PROXY.replace(old, new, 1) if old else PROXY}
    if not found:
        assert meshed(files).outside
        return
    assert set(found) <= {one.removeprefix("mesh/proxy.yaml:") for one in problems(files)}


def test_a_gateway_leads_outside_too() -> None:
    route = ROUTE.replace("  hosts: [books.example.com]", "  hosts: [www.example.com]\n  gateways: [edge]")
    assert meshed(folder(route=route)).virtual_services[-1].gateway_ids() == ("default/edge",)


def test_a_delegate_does_not_yet() -> None:
    root = ROUTE.replace("name: out", "name: root").replace(
        "    - route: [{destination: {host: books.example.com, port: {number: 443}}}]",
        "    - delegate: {name: out}",
    )
    leaf = ROUTE.replace("  hosts: [books.example.com]\n", "")
    assert problems({**folder(route=leaf), "mesh/root.yaml": root}) == [
        "mesh/out.yaml:6: a delegate does not lead outside, to `books.example.com`, yet; "
        "route to it by `route`, in a VirtualService that has `hosts`"
    ]


@pytest.mark.parametrize("gateways", ["  gateways: [edge]\n", ""])
def test_connections_at_a_gateway_go_to_no_name_that_is_looked_up_as_it_is_asked_for(gateways: str) -> None:
    entry = ENTRIES.replace(
        "hosts: [dynamic.example.com]\n  ports: [{number: 80, name: http, protocol: HTTP}]",
        "hosts: [dynamic.example.com]\n  ports: [{number: 443, name: tls, protocol: TLS}]",
    )
    route = (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: out}\nspec:\n"
        f"  hosts: [dynamic.example.com]\n{gateways}  tls:\n"
        "    - match: [{sniHosts: [dynamic.example.com]}]\n      route: [{destination: {host: dynamic.example.com}}]\n"
    )
    tls = "    - {port: {number: 8001, name: tls, protocol: TLS}, hosts: ['*'], tls: {mode: PASSTHROUGH}}\n"
    files = {
        **GOOD,
        "mesh/entries.yaml": entry,
        "mesh/out.yaml": route,
        "mesh/gateway.yaml": GOOD["mesh/gateway.yaml"] + tls,
    }
    if not gateways:
        assert meshed(files)
        return
    assert problems(files) == [
        "mesh/out.yaml:9: `dynamic.example.com` is looked up by the name that is asked for; set its `resolution` to DNS"
    ]


FEDERATED = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: pay}
spec:
  hosts: [pay.bank.test]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.7}]
  subjectAltNames: ["spiffe://bank.test/ns/default/sa/pay"]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: pay}
spec:
  host: pay.bank.test
  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}
"""


def test_the_mesh_s_mutual_tls_leads_to_a_trust_domain_that_is_known() -> None:
    mesh = meshed({**GOOD, "mesh/pay.yaml": FEDERATED}, federated=frozenset({"bank.test"}))
    tls = mesh.outside_policy(mesh.caller(mesh.instances["web-v1"]), "pay.bank.test", 80).tls
    assert tls is not None
    assert (tls.mode, mesh.federated) == ("ISTIO_MUTUAL", {"bank.test"})


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("spiffe://bank.test/ns/default/sa/pay", "spiffe://bank.test/ns/default/sa/pay"),
        ("spiffe://cluster.local/ns/default/sa/web", "spiffe://cluster.local/ns/default/sa/web"),
        ("pay.bank.test", "pay.bank.test"),
        ("spiffe://shop.test/../pay", "spiffe://shop.test/../pay"),
    ],
    ids=["not known", "its own", "no SPIFFE ID", "no path of one"],
)
def test_and_to_nobody_else(name: str, shown: str) -> None:
    text = FEDERATED.replace("spiffe://bank.test/ns/default/sa/pay", name)
    assert problems({**GOOD, "mesh/pay.yaml": text}, federated=frozenset({"shop.test"})) == [
        f"mesh/pay.yaml:16: `{shown}` is no workload of a trust domain that this mesh knows; "
        "name the trust domain in `ca.federation`, or to `policyd ca federation create`"
    ]
