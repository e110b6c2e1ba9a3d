"""Gateways and VirtualServices refer to what is there."""

from __future__ import annotations

import pytest

from tests.mesh.sample import GOOD, broken, meshed, problems

IN_MESH = GOOD["mesh/routes.yaml"].replace("  gateways: [edge]\n", "").replace("www.example.com", "api")


def test_the_good_folder_is_good() -> None:
    mesh = meshed(GOOD)
    assert [gateway.id for gateway in mesh.gateways] == ["default/edge"]
    assert [virtual.gateway_ids() for virtual in mesh.virtual_services] == [("default/edge",)]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "ingressgateway",
            "egressgateway",
            "mesh/gateway.yaml:5: the selector of Gateway `edge` matches no gateway; "
            "declare one under `gateways` in workloads.yaml; its label is `istio: ingressgateway`",
        ),
        (
            "number: 8000",
            "number: 9000",
            "mesh/gateway.yaml:7: the gateway `edge` does not listen on port 9000; "
            "add it to `listen` in workloads.yaml",
        ),
        (
            "name: edge}",
            "name: egde}",
            "mesh/routes.yaml:6: no Gateway is called `edge`; did you mean `default/egde`?",
        ),
        (
            "*.example.com",
            "*.example.org",
            "mesh/routes.yaml:5: the host `www.example.com` is served by none of its gateways; "
            "add it to a Gateway's `hosts`",
        ),
    ],
)
def test_a_gateway_that_leads_nowhere_is_refused(old: str, new: str, problem: str) -> None:
    assert problems(broken("mesh/gateway.yaml", old, new)) == [problem]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "host: web",
            "host: wep",
            "mesh/routes.yaml:9: the destination `wep` is no service of the mesh; did you mean `web.default`?",
        ),
        (
            "host: web",
            "host: web.shop.svc.cluster.local",
            "mesh/routes.yaml:9: the destination `web.shop.svc.cluster.local` is no service of the mesh; "
            "declare it in workloads.yaml",
        ),
        (
            "host: web",
            "host: www.example.com",
            "mesh/routes.yaml:9: the destination `www.example.com` is no service of the mesh; "
            "declare it in workloads.yaml",
        ),
        (
            "host: web",
            "host: web, port: {number: 81}",
            "mesh/routes.yaml:9: the port of destination `web` is missing or none of its own; it has 80",
        ),
        (
            "host: web",
            "host: edge",
            "mesh/routes.yaml:9: the destination `edge` is a gateway; route to what it serves",
        ),
        (
            "host: web",
            "host: web, subset: v9",
            "mesh/routes.yaml:9: callers in `default` know no subset `v9` of the service `web.default`; "
            "declare it in a DestinationRule of that host",
        ),
        (
            "route: [",
            "mirror: {host: wep}\n      route: [",
            "mesh/routes.yaml:9: the destination `wep` is no service of the mesh; did you mean `web.default`?",
        ),
        (
            "route: [",
            "mirrors: [{destination: {host: edge}}]\n      route: [",
            "mesh/routes.yaml:9: the destination `edge` is a gateway; route to what it serves",
        ),
        (
            "prefix: /}",
            "prefix: /}, gateways: [mesh]",
            "mesh/routes.yaml:8: the rule is for `mesh`, to which its VirtualService is not bound; "
            "add it to `spec.gateways`",
        ),
    ],
)
def test_a_destination_that_is_not_there_is_refused(old: str, new: str, problem: str) -> None:
    assert problems(broken("mesh/routes.yaml", old, new)) == [problem]


@pytest.mark.parametrize("name", ["mesh/gateway.yaml", "mesh/routes.yaml"])
def test_the_same_name_twice_is_refused(name: str) -> None:
    kind, id_ = ("Gateway", "default/edge") if "gateway" in name else ("VirtualService", "default/web")
    assert problems({**GOOD, "mesh/z.yaml": GOOD[name]}) == [
        f"mesh/z.yaml:3: the {kind} `{id_}` is declared twice, first in {name}:3; rename or remove one"
    ]


def test_a_rule_in_sidecars_names_a_service() -> None:
    assert meshed({**GOOD, "mesh/routes.yaml": IN_MESH}).virtual_services[0].in_mesh


def test_a_rule_for_sidecars_and_gateways_may_name_hosts_of_both() -> None:
    text = GOOD["mesh/routes.yaml"].replace("[edge]", "[mesh, edge]").replace("[www.", "[api, www.")
    assert meshed({**GOOD, "mesh/routes.yaml": text}).virtual_services[0].spec.hosts == ("api", "www.example.com")


@pytest.mark.parametrize(
    ("host", "remedy"),
    [
        ("apj", "did you mean `api.default`?"),
        ("apj.default", "did you mean `api.default`?"),
        ("apj.default.svc.cluster.local", "did you mean `api.default`?"),
        ("api.shop.svc.cluster.local", "name a service, or a host outside of the mesh by its full name"),
        ("'*.shop.svc.cluster.local'", "name a service, or a host outside of the mesh by its full name"),
    ],
)
def test_in_sidecars_a_name_that_no_service_has_is_refused(host: str, remedy: str) -> None:
    files = {**GOOD, "mesh/routes.yaml": IN_MESH.replace("hosts: [api]", f"hosts: [{host}]")}
    shown = host.strip("'")
    assert problems(files) == [f"mesh/routes.yaml:5: the host `{shown}` is no service of the mesh; {remedy}"]


@pytest.mark.parametrize("host", ["'*'", "example.com", "shop.example.com", "'*.default.svc.cluster.local'"])
def test_in_sidecars_hosts_are_services_patterns_of_them_and_outside_names(host: str) -> None:
    mesh = meshed({**GOOD, "mesh/routes.yaml": IN_MESH.replace("hosts: [api]", f"hosts: [{host}]")})
    assert mesh.virtual_services[0].spec.hosts == (host.strip("'"),)


def test_in_sidecars_a_host_has_all_its_rules_in_one_place() -> None:
    second = IN_MESH.replace("name: web", "name: second").replace("[api]", "[api.default.svc.cluster.local]")
    assert problems({**GOOD, "mesh/routes.yaml": IN_MESH, "mesh/z.yaml": second}) == [
        "mesh/z.yaml:5: the host `api.default.svc.cluster.local` has its rules in the VirtualService `default/web` "
        "already; write all rules of a host into one"
    ]
