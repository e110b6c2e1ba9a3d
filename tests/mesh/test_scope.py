"""Sidecars: the narrowest has the word on what a proxy knows, and what could not hold is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policyd.mesh.istio.connection_pool import ConnectionPool, HttpSettings, TcpSettings
from policyd.mesh.outside import Mode, Outbound
from policyd.mesh.scope import EVERYTHING, pool_of, scope_of
from tests.mesh.sample import GOOD, meshed, problems

WORKLOADS = GOOD["workloads.yaml"].replace(
    "gateways:", "  far-v1: {service: far, port: 80, namespace: away, labels: {tier: back}}\ngateways:"
)


def sidecar(name: str, namespace: str, hosts: str, labels: str = "") -> str:
    selector = f"workloadSelector: {{labels: {{{labels}}}}}, " if labels else ""
    return f"""\
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{{selector}egress: [{{hosts: {hosts}}}]}}
"""


def setting(spec: str, labels: str = "app: api, version: v1", name: str = "s") -> str:
    selector = f"workloadSelector: {{labels: {{{labels}}}}}, " if labels else ""
    return f"""\
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {name}}}
spec: {{{selector}{spec}}}
"""


def folder(*documents: str) -> dict[str, str]:
    return {**GOOD, "workloads.yaml": WORKLOADS, "mesh/sidecars.yaml": "".join(documents)}


ALL = {"web", "api", "edge", "api-canary", "far"}
DEFAULT = ALL - {"far"}


@pytest.mark.parametrize(
    ("documents", "web", "far"),
    [
        ([], ALL, ALL),
        ([sidecar("s", "default", '["./*"]')], DEFAULT, ALL),
        ([sidecar("s", "istio-system", '["./*"]')], DEFAULT, {"far"}),
        ([sidecar("s", "default", '["*/*"]')], ALL, ALL),
        ([sidecar("s", "default", '["~/*"]')], set(), ALL),
        ([sidecar("s", "default", '["away/*"]')], {"far"}, ALL),
        ([sidecar("s", "default", '["./api.default.svc.cluster.local"]')], {"api"}, ALL),
        ([sidecar("s", "default", '["*/far.away"]')], {"far"}, ALL),
        ([sidecar("s", "default", '["./far.away"]')], set(), ALL),
        ([sidecar("s", "default", '["*/*.away.svc.cluster.local"]')], {"far"}, ALL),
        ([sidecar("s", "default", '["~/*"]'), sidecar("w", "default", '["*/*"]', "app: web")], ALL, ALL),
        ([sidecar("m", "istio-system", '["~/*"]'), sidecar("s", "default", '["./*"]')], DEFAULT, set()),
    ],
)
def test_the_narrowest_says_what_is_known(documents: list[str], web: set[str], far: set[str]) -> None:
    mesh = meshed(folder(*documents))

    def known(instance: str) -> set[str]:
        scope = scope_of(mesh, mesh.instances[instance])
        return {one.name for one in mesh.services.values() if scope.sees(one, one.ports[0].number)}

    assert (known("web-v1"), known("far-v1")) == (web, far)


def test_a_gateway_knows_everything() -> None:
    mesh = meshed(folder(sidecar("s", "default", '["~/*"]')))

    assert scope_of(mesh, mesh.instances["edge"]) == EVERYTHING


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (sidecar("s", "nowhere", '["./*"]'),
         "4: the Sidecar `nowhere/s` holds for no instance; compare its namespace (`istio-system` is all of them) and "
         "its labels with workloads.yaml"),
        (sidecar("s", "istio-system", '["./*"]', "app: web"),
         "5: the Sidecar `istio-system/s` holds for no instance; compare its namespace (`istio-system` is all of them) "
         "and its labels with workloads.yaml"),
        (sidecar("a", "default", '["./*"]') + sidecar("b", "default", '["./*"]'),
         "9: `web-v1` has a Sidecar for its namespace already, `default/a`; make one of both"),
        (sidecar("a", "default", '["./*"]', "app: api") + sidecar("b", "default", '["./*"]', "version: v2"),
         "9: `api-v2` has a Sidecar for its workload already, `default/a`; make one of both"),
        (sidecar("s", "default", '["./apo.default"]'),
         "5: nothing in the mesh is called `apo.default`; did you mean `api.default`?"),
        (sidecar("s", "default", "[api]"),
         "5: `spec.egress[0].hosts[0]`: `api` has no namespace; write `./*` for one's own, `*/api` for any"),
        (setting("egressProxy: {host: api}", ""),
         "5: field `egressProxy` of Sidecar is not supported in `spec`; names that nothing declares leave from here; "
         "declare them, and lead them by a VirtualService"),
        (setting("ingress: [{port: {number: 8080}, tls: {mode: SIMPLE, credentialName: shop}}]"),
         "5: port 8080 of `api-v1` takes the mesh's own mutual TLS; let a PeerAuthentication say DISABLE for it, or "
         "take `tls` out"),
        (setting("ingress: [{port: {number: 8080}, tls: {mode: PASSTHROUGH}}]"),
         "5: `spec.ingress[0].tls`: a sidecar shows a certificate to who is not of the mesh by `mode` SIMPLE or "
         "MUTUAL; write one"),
        (setting("", ""),
         "5: `spec`: it says nothing; give `egress`, `ingress`, `outboundTrafficPolicy` or a pool"),
        (setting("ingress: [{port: {number: 8080}}]", ""),
         "5: `spec`: `ingress` is of the workloads that a `workloadSelector` names; add it"),
        (setting("ingress: [{port: {number: 8080}}, {port: {number: 8080}}]"),
         "5: `spec`: port 8080 is in `ingress` twice; write all of it into one entry"),
        (setting("ingress: [{port: {number: 8080}, captureMode: TPROXY}]"),
         "5: `spec.ingress[0].captureMode` must be 'DEFAULT', 'NONE' or 'IPTABLES', not the text `TPROXY`"),
        (setting("ingress: [{port: {number: 8080}, defaultEndpoint: '10.0.0.1:80'}]"),
         "5: `spec.ingress[0].defaultEndpoint`: `10.0.0.1:80` is nowhere that an application listens; write "
         "`127.0.0.1:PORT`, `0.0.0.0:PORT` (the instance's own address) or `unix:///PATH`"),
        (setting("ingress: [{port: {number: 8080}, defaultEndpoint: '127.0.0.1:70000'}]"),
         "5: `spec.ingress[0].defaultEndpoint`: `127.0.0.1:70000` is nowhere that an application listens; write "
         "`127.0.0.1:PORT`, `0.0.0.0:PORT` (the instance's own address) or `unix:///PATH`"),
        (setting(f"ingress: [{{port: {{number: 8080}}, defaultEndpoint: 'unix:///{'a' * 107}'}}]"),
         f"5: `spec.ingress[0].defaultEndpoint`: `{('unix:///' + 'a' * 107)[:80]}` is nowhere that an application "
         "listens; write `127.0.0.1:PORT`, `0.0.0.0:PORT` (the instance's own address) or `unix:///PATH`"),
        (setting("ingress: [{port: {number: 9090}}]"),
         "5: port 8080 of `api-v1` is left out, so that nobody would reach it; add it\n"
         "5: `api-v1` has no port 9090; it has 8080 (`port` of workloads.yaml)"),
        (setting("ingress: [{port: {number: 8080}, bind: 127.0.0.9}]"),
         "5: peers reach `api-v1` at `127.0.0.1`, where its sidecar then is not; bind `127.0.0.1` or `0.0.0.0`"),
        (setting("egress: [{hosts: ['./*'], bind: 127.0.0.1}]"),
         "5: field `bind` of Sidecar is not supported in `spec.egress[0]`; in `egress` it would let whoever is on the "
         "machine ask as the workload; applications ask by their proxy, which a secret opens (`http_proxy`)"),
        (setting("inboundConnectionPool: {http: {h2UpgradePolicy: UPGRADE}}"),
         "5: `spec.inboundConnectionPool`: `h2UpgradePolicy` is of callers, and an application is not called again "
         "here; write a DestinationRule"),
    ],
)  # fmt: skip
def test_what_could_not_hold_is_refused_with_its_line(document: str, problem: str) -> None:
    assert problems(folder(document)) == [f"mesh/sidecars.yaml:{one}" for one in problem.splitlines()]


@pytest.mark.parametrize(
    ("mesh_mode", "documents", "anywhere"),
    [
        ("REGISTRY_ONLY", [], set()),
        ("ALLOW_ANY", [], {"web-v1", "api-v1", "api-v2", "far-v1"}),
        ("REGISTRY_ONLY", [setting("outboundTrafficPolicy: {mode: ALLOW_ANY}", "app: web")], {"web-v1"}),
        ("ALLOW_ANY", [setting("outboundTrafficPolicy: {}", "app: web")], {"api-v1", "api-v2", "far-v1"}),
        ("REGISTRY_ONLY",
         [setting("outboundTrafficPolicy: {mode: ALLOW_ANY}", ""), sidecar("w", "default", '["./*"]', "app: web")],
         {"web-v1", "api-v1", "api-v2"}),
    ],
)  # fmt: skip
def test_the_narrowest_that_says_something_says_what_becomes_of_other_names(
    mesh_mode: Mode, documents: list[str], anywhere: set[str]
) -> None:
    mesh = replace(meshed(folder(*documents)), outbound=Outbound(mesh_mode))
    assert {name for name, one in mesh.instances.items() if scope_of(mesh, one).any_name} == anywhere


def test_a_port_of_what_may_be_called_is_known_alone() -> None:
    workloads = """\
workloads:
  web-v1: {service: web, port: 80}
  two-v1: {service: two, ports: [{port: 80}, {port: 90, name: b}]}
"""
    document = setting("egress: [{hosts: ['./*'], port: {number: 90}}]", "app: web")
    mesh = meshed({"workloads.yaml": workloads, "mesh/sidecars.yaml": document})
    scope, two = scope_of(mesh, mesh.instances["web-v1"]), mesh.services["two.default"]

    assert (scope.sees(two, 80), scope.sees(two, 90)) == (False, True)
    assert not scope.sees(mesh.services["web.default"], 80)


@pytest.mark.parametrize(
    ("entry", "there"),
    [
        ("", ("127.0.0.1", 7001, "", "")),
        ("defaultEndpoint: 127.0.0.1:8080", ("127.0.0.1", 7001, "", "")),
        ("defaultEndpoint: 127.0.0.1:9000", ("127.0.0.1", 9000, "", "")),
        ("defaultEndpoint: 0.0.0.0:8080, captureMode: NONE", ("192.0.2.7", 8080, "", "")),
        ("defaultEndpoint: '[::1]:9000'", ("::1", 9000, "", "")),
        ("defaultEndpoint: unix:///run/api.sock", ("127.0.0.1", 7001, "/run/api.sock", "")),
        ("defaultEndpoint: unix://@api", ("127.0.0.1", 7001, "@api", "")),
        ("bind: 0.0.0.0", ("127.0.0.1", 7001, "", "0.0.0.0")),
    ],
)
def test_where_an_application_listens_its_sidecar_says(entry: str, there: tuple[str, int, str, str]) -> None:
    workloads = """\
workloads:
  api-v1: {service: api, port: 8080, address: 192.0.2.7, appPort: 7001, inboundPort: 7002, outboundPort: 7003}
"""
    document = setting(f"ingress: [{{port: {{number: 8080}}{', ' + entry if entry else ''}}}]", "app: api")
    [served] = meshed({"workloads.yaml": workloads, "mesh/sidecars.yaml": document}).instances["api-v1"].ports
    assert (served.app_address, served.app_port, served.app_socket, served.bind) == there


def test_the_sidecar_itself_is_no_application() -> None:
    workloads = """\
workloads:
  api-v1: {service: api, port: 8080, address: 192.0.2.7, appPort: 7001, inboundPort: 7002, outboundPort: 7003}
"""
    document = setting("ingress: [{port: {number: 8080}, defaultEndpoint: 127.0.0.1:7002}]", "app: api")
    assert problems({"workloads.yaml": workloads, "mesh/sidecars.yaml": document}) == [
        "mesh/sidecars.yaml:5: `api-v1`'s own sidecar listens on port 7002; name the port of the application"
    ]


def test_the_pool_of_a_port_goes_before_that_of_all() -> None:
    pools = "inboundConnectionPool: {tcp: {maxConnections: 5}}"
    entry = "ingress: [{port: {number: 8080}, connectionPool: {http: {http1MaxPendingRequests: 3}}}]"
    mesh = meshed(folder(setting(pools, ""), setting(entry, "version: v2", "own")))

    def pool(name: str) -> ConnectionPool:
        return pool_of(mesh, mesh.instances[name], mesh.instances[name].ports[0])

    assert pool("api-v1") == ConnectionPool(tcp=TcpSettings(max_connections=5))
    assert pool("api-v2") == ConnectionPool(http=HttpSettings(http1_max_pending_requests=3))
    assert pool("far-v1") == ConnectionPool()
