"""A folder becomes the whole expected Mesh, or all of its problems."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.istio.common import Metadata
from policyd.mesh.istio.destination import Destination, PortSelector, RouteDestination
from policyd.mesh.istio.gateway import Gateway, GatewaySpec, Server, ServerPort
from policyd.mesh.istio.http_route import HttpRoute
from policyd.mesh.istio.matches import HttpMatch, StringMatch
from policyd.mesh.istio.virtual_service import VirtualService, VirtualServiceSpec
from policyd.mesh.model import Group, Instance, Listen, Listener, Mesh, MetricsPage, Port, Served, Service, Workload
from policyd.mesh.placement import Placement, SidecarPlace, assumed
from policyd.spiffe import SpiffeId
from tests.mesh.sample import GOOD, broken, meshed, problems

BOOKINFO = {
    "productpage-v1": {"version": "v1"},
    "details-v1": {"version": "v1"},
    "reviews-v1": {"version": "v1"},
    "reviews-v2": {"version": "v2"},
    "reviews-v3": {"version": "v3"},
    "ratings-v1": {"version": "v1"},
}


def account(name: str) -> SpiffeId:
    return SpiffeId("cluster.local", f"/ns/default/sa/{name}")


def bookinfo_instance(name: str, labels: dict[str, str], first_port: int) -> Instance:
    service = name.partition("-")[0]
    return Instance(
        name=name,
        workload=account(f"bookinfo-{service}"),
        role="sidecar",
        service=f"{service}.default",
        ports=(Served(9080, 9080, app_port=first_port, inbound_port=first_port + 1),),
        labels={"app": service, **labels},
        address="127.0.0.1",
        outbound_port=first_port + 2,
        proxy_secret=f"secret of {name}",
    )


def bookinfo_mesh() -> Mesh:
    gateway = Instance(
        name="ingress",
        workload=account("bookinfo-ingress"),
        role="gateway",
        service="ingress.default",
        labels={"app": "ingress", "istio": "ingressgateway"},
        listens=(Listen(8080, 28080),),
    )
    sidecars = [bookinfo_instance(name, labels, 20000 + 3 * at) for at, (name, labels) in enumerate(BOOKINFO.items())]
    services = [
        Service("ingress", "default", (Port(8080),), {"app": "ingress"}),
        *(Service(s, "default", (Port(9080),), {"app": s}) for s in ("productpage", "details", "reviews", "ratings")),
    ]
    listeners = [
        Listener("ingress/gateway/8080", "gateway", "ingress", gateway.workload, gateway.service, 8080, False),
        *(Listener(f"{i.name}/inbound", "inbound", i.name, i.workload, i.service, 9080, True) for i in sidecars),
        *(Listener(f"{i.name}/egress", "egress", i.name, i.workload, "", 0, False) for i in sidecars),
    ]
    groups = [
        Group("ratings-readers", workloads=frozenset({account("bookinfo-reviews"), account("bookinfo-productpage")})),
        Group("editors", users=frozenset({"https://login.example.com/alice"})),
        Group("google", hosts=frozenset({"www.googleapis.com"})),
        Group("sre", operators=frozenset({"unix:1000"})),
    ]
    paths = [("exact", "/productpage"), ("prefix", "/static"), ("exact", "/login"), ("exact", "/logout")]
    matches = [{kind: path} for kind, path in [*paths, ("prefix", "/api/v1/products")]]
    route = RouteDestination(destination=Destination(host="productpage", port=PortSelector(number=9080)))
    rule = HttpRoute(match=tuple(HttpMatch(uri=StringMatch(**match)) for match in matches), route=(route,))
    port = ServerPort(number=8080, name="http", protocol="HTTP")
    return Mesh(
        trust_domain="cluster.local",
        services={service.id: service for service in services},
        workloads={i.workload: Workload(i.workload) for i in (gateway, *sidecars)},
        instances={i.name: i for i in (gateway, *sidecars)},
        groups={group.name: group for group in groups},
        gateways=(
            Gateway(
                metadata=Metadata(name="bookinfo-gateway", namespace="default"),
                spec=GatewaySpec(selector={"istio": "ingressgateway"}, servers=(Server(port=port, hosts=("*",)),)),
            ),
        ),
        virtual_services=(
            VirtualService(
                metadata=Metadata(name="bookinfo", namespace="default"),
                spec=VirtualServiceSpec(hosts=("*",), gateways=("bookinfo-gateway",), http=(rule,)),
            ),
        ),
        listeners={listener.name: listener for listener in listeners},
    )


def test_the_sample_folder_builds_to_the_whole_mesh(root: Path) -> None:
    folder = root / "examples" / "bookinfo"
    paths = [folder / "workloads.yaml", folder / "groups.yaml", folder / "mesh" / "gateway.yaml"]
    files = {str(path.relative_to(folder)): path.read_text() for path in paths}
    places = {
        name: SidecarPlace(20000 + 3 * at, 20001 + 3 * at, 20002 + 3 * at, f"secret of {name}")
        for at, name in enumerate(BOOKINFO)
    }
    placement = Placement(places, {"ingress": (Listen(8080, 28080),)})
    assert build(declare(files), "cluster.local", placement) == bookinfo_mesh()


def test_instances_are_found_by_service() -> None:
    mesh = meshed(GOOD)
    assert [i.name for i in mesh.instances_of("api.default")] == ["api-v1", "api-v2"]
    assert [i.name for i in mesh.instances_of("api-canary.default")] == ["api-v2"]
    assert mesh.instances_of("nobody.default") == ()


def test_a_further_service_leads_to_its_instances_but_is_never_what_is_asked_about() -> None:
    mesh = meshed(GOOD)
    assert mesh.services["api-canary.default"] == Service(
        "api-canary", "default", (Port(80, "http-main", target=8080),), {"tier": "canary"}
    )
    assert mesh.instances["api-v2"].also == ("api-canary.default",)
    assert mesh.listeners["api-v2/inbound"].service == "api.default"


def test_a_declared_service_takes_the_place_of_the_made_one() -> None:
    text = GOOD["mesh/service.yaml"].replace("api-canary", "api").replace(", version: v2", "")
    mesh = meshed({**GOOD, "mesh/service.yaml": text.replace("port: 80,", "port: 8080,")})
    assert mesh.services["api.default"] == Service("api", "default", (Port(8080, "http-main"),), {"tier": "canary"})
    assert mesh.instances["api-v1"].also == ()


def test_a_workload_has_its_service_accounts_labels_only() -> None:
    text = GOOD["workloads.yaml"] + "serviceAccounts: {api: {labels: {team: blue}}}\n"
    mesh = meshed({**GOOD, "workloads.yaml": text})
    assert mesh.workloads[account("api")] == Workload(account("api"), {"team": "blue"})
    assert mesh.workloads[account("web")] == Workload(account("web"))


def test_namespaces_and_service_accounts_may_be_given() -> None:
    text = GOOD["workloads.yaml"].replace("command: [web]", "namespace: shop, serviceAccount: till")
    text += "defaults: {serviceAccount: 'app-{service}'}\n"
    mesh = meshed({"workloads.yaml": text})
    assert str(mesh.instances["web-v1"].workload) == "spiffe://cluster.local/ns/shop/sa/till"
    assert str(mesh.instances["edge"].workload) == "spiffe://cluster.local/ns/default/sa/app-edge"
    assert mesh.instances["web-v1"].service == "web.shop"


def test_a_gateways_labels_may_replace_the_usual_one() -> None:
    text = GOOD["workloads.yaml"].replace("[8000, 8001]", "8000, labels: {istio: other}")
    mesh = meshed({"workloads.yaml": text})
    assert mesh.instances["edge"].labels == {"app": "edge", "istio": "other"}


def test_nothing_declared_is_an_empty_mesh() -> None:
    assert meshed({}) == Mesh("cluster.local", {}, {}, {}, {}, (), (), {})


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("web-v1:", "edge:", "workloads.yaml:2: `edge` is a gateway too; rename one"),
        (
            "{service: web, port: 80,",
            "{service: api, port: 80,",
            "workloads.yaml:3: service `api.default` has port 8080 here and 80 in `web-v1`; give both the same port",
        ),
        (
            "command: [web]",
            "serviceAccount: web, inboundPort: 8001",
            "workloads.yaml:2: port 8001 of `web-v1` is given to `edge` already; give another one",
        ),
        (
            "command: [web]",
            "inboundPort: 9000, appPort: 9000",
            "workloads.yaml:2: port 9000 of `web-v1` is given to `web-v1` already; give another one",
        ),
        (
            "[8000, 8001]",
            "[8000, 8000]",
            "workloads.yaml:6: port 8000 of `edge` is given to `edge` already; give another one",
        ),
        (
            "gateways:\n",
            "serviceAccounts: {till: {}}\ngateways:\n",
            "workloads.yaml:5: no instance has the service account `till`; remove it",
        ),
        (
            "gateways:\n",
            "serviceAccounts: {web: {labels: {a: b}}, web.default: {}}\ngateways:\n",
            "workloads.yaml:5: the service account `web.default` is declared twice; remove one",
        ),
    ],
)
def test_workloads_that_do_not_fit_together_are_refused(old: str, new: str, problem: str) -> None:
    assert problem in problems(broken("workloads.yaml", old, new))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "version: v2",
            "version: v9",
            "mesh/service.yaml:5: the selector of service `api-canary.default` matches no workload of its namespace; "
            "compare it with the labels in workloads.yaml; `app` is the service's name",
        ),
        (
            "targetPort: 8080, ",
            "",
            "mesh/service.yaml:6: port 80 of service `api-canary.default` leads to 80, `api-v2` has 8080; "
            "set `targetPort: 8080`",
        ),
        (
            "name: api-canary",
            "name: edge",
            "mesh/service.yaml:3: the service `edge.default` is that of a gateway; rename or remove one",
        ),
        (
            "name: api-canary",
            "name: api",
            "mesh/service.yaml:5: the selector of service `api.default` leaves out `api-v1`, which serves it; "
            "use labels that all have",
        ),
        (
            "name: http-main}]",
            "name: http-main}, {port: 80, targetPort: 8080}]",
            "mesh/service.yaml:6: port 80 (`http`) of service `api-canary.default` repeats a number or a name; "
            "give each port its own number and name",
        ),
    ],
)
def test_services_that_do_not_fit_are_refused(old: str, new: str, problem: str) -> None:
    assert problem in problems(broken("mesh/service.yaml", old, new))


def test_the_same_service_twice_is_refused() -> None:
    files = {**GOOD, "mesh/z.yaml": GOOD["mesh/service.yaml"]}
    assert problems(files) == [
        "mesh/z.yaml:3: the service `api-canary.default` is declared twice; rename or remove one"
    ]


def test_all_problems_of_all_files_are_found_at_once() -> None:
    files = {
        **broken("mesh/routes.yaml", "host: web", "host: wep"),
        "groups.yaml": "groups: {a: {workloads: [wep]}}",
        "mesh/service.yaml": GOOD["mesh/service.yaml"].replace("v2", "v9"),
    }
    assert [problem.partition(":")[0] for problem in problems(files)] == [
        "mesh/service.yaml",
        "groups.yaml",
        "mesh/routes.yaml",
    ]


def test_a_thousand_services_build_quickly() -> None:
    workloads = "".join(f"  s{n}-v1: {{service: s{n}, port: 80}}\n" for n in range(1000))
    resources = "---\n".join(
        GOOD["mesh/service.yaml"].replace("api-canary", f"c{n}").replace("app: api, version: v2", f"app: s{n}")
        for n in range(1000)
    ).replace("targetPort: 8080", "targetPort: 80")
    declaration = declare({"workloads.yaml": "workloads:\n" + workloads, "mesh/s.yaml": resources})
    placement = assumed(declaration)
    start = time.process_time()
    mesh = build(declaration, "cluster.local", placement)
    assert len(mesh.services) == 2000
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("metrics", "page"),
    [
        ("{}", MetricsPage("127.0.0.1", 21_000, "/metrics")),
        ("{path: /stats, port: 9102}", MetricsPage("127.0.0.1", 9102, "/stats")),
    ],
)
def test_an_application_s_metrics_are_on_its_first_port_or_another(metrics: str, page: MetricsPage) -> None:
    spec = f"web-v1: {{service: web, port: 80, appPort: 21000, metrics: {metrics}, command: [web]}}"
    instances = meshed(broken("workloads.yaml", "web-v1: {service: web, port: 80, command: [web]}", spec)).instances

    assert (instances["web-v1"].metrics, instances["api-v1"].metrics) == (page, None)
