"""A listener at which its sidecar may decide: what of it changes when the other takes over, and what Envoy is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policyd import decision_line, envoy_api
from policyd.authz.ruling import Ruling, make_ruling
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema, parse_schema
from policyd.decision_line import PIPE
from policyd.envoy_api import LISTENER, ROUTE
from policyd.local.enforcing import Terms, enforced
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.placement import assumed
from policyd.spiffe import SpiffeId
from policyd.xds.resources.build import build_snapshots
from policyd.xds.resources.model import Control, Switch
from policyd.xds.resources.observing import STATIC_CLUSTERS
from policyd.xds.resources.reuse import Snapshots
from tests.golden import check_json

CONTROL = Control("127.0.0.1", (1,), SpiffeId.server("cluster.local"))
WORKLOADS = "workloads:\n  shop-v1: {service: shop, port: 80}\n  web-v1: {service: web, port: 80}\n"
PLAINTEXT = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: PERMISSIVE}}
"""
AUTO = """\
apiVersion: policyd.io/v1
kind: Enforcement
metadata: {name: shop}
spec: {selector: {matchLabels: {app: shop}}, enforcement: auto}
"""
POLICY = '@id("open") permit (principal, action in Action::"http", resource) when {{ context.request.path == "{}" }};'


@pytest.fixture(scope="module")
def schema(root: Path) -> Schema:
    """The traffic schema."""
    return parse_schema((root / "policies/mesh.cedarschema").read_text())


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    """Two services, of which one may decide."""
    return mesh_with(AUTO)


def mesh_with(enforcement: str) -> Mesh:
    declaration = declare({"workloads.yaml": WORKLOADS, "mesh/p.yaml": PLAINTEXT, "mesh/e.yaml": enforcement})
    return build(declaration, "cluster.local", assumed(declaration))


def ruling_of(mesh: Mesh, schema: Schema, path: str = "/open") -> Ruling:
    return make_ruling(mesh, load_policies({"p.cedar": POLICY.format(path)}, schema), schema)


def switches_of(ruling: Ruling, durability: str = "async") -> Mapping[str, Switch]:
    return enforced(ruling, Terms(durability)).switches


def snapshots_of(mesh: Mesh, switches: Mapping[str, Switch], before: Any = None) -> Snapshots[Any]:
    return build_snapshots(mesh, CONTROL, before, switches).check(STATIC_CLUSTERS)


def bodies(snapshots: Snapshots[Any], type_url: str) -> dict[str, str]:
    """The contents of resources of shop-v1, by name."""
    return {name: one.version for name, one in snapshots["shop-v1"].of(type_url).items()}


def test_who_decides_stands_in_route_tables_and_nowhere_else(mesh: Mesh, schema: Schema) -> None:
    ruling = ruling_of(mesh, schema)
    local, central = (snapshots_of(mesh, switches_of(ruling, durability)) for durability in ("async", "written"))

    routes = bodies(local, ROUTE), bodies(central, ROUTE)

    assert bodies(local, LISTENER) == bodies(central, LISTENER)
    changed = {name for name in routes[0] if routes[0][name] != routes[1][name]}
    assert changed == {"shop-v1/inbound", "shop-v1/inbound/plaintext"}


def test_another_revision_is_another_table_of_the_listeners_that_it_touches(mesh: Mesh, schema: Schema) -> None:
    first = snapshots_of(mesh, switches_of(ruling_of(mesh, schema)))
    second = snapshots_of(mesh, switches_of(ruling_of(mesh, schema, "/other")), first)

    assert bodies(first, LISTENER) == bodies(second, LISTENER)
    assert bodies(first, ROUTE)["shop-v1/inbound"] != bodies(second, ROUTE)["shop-v1/inbound"]
    assert second.own["web-v1"] is first.own["web-v1"]


READER = POLICY.replace("{{ ", '{{ context.request.headers.hasTag("x-a") || ', 1)
LISTENERS = [  # what gives a listener another form (docs/tasks/central-or-local.md), and what does not
    ("the first Enforcement", "", AUTO.replace("auto", "central"), False, False),
    ("a header that no policy read", AUTO, AUTO, True, False),
    ("no sample any more", AUTO, AUTO.replace("auto", "auto, samplePercent: 0"), False, False),
    ("a larger sample", AUTO, AUTO.replace("auto", "auto, samplePercent: 5"), False, True),
    ("from central", AUTO.replace("auto", "central"), AUTO, False, True),
]


@pytest.mark.parametrize(
    ("before", "after", "reads", "same"), [one[1:] for one in LISTENERS], ids=[one[0] for one in LISTENERS]
)
def test_a_listener_is_another_one_where_open_connections_are_said_to_end(
    schema: Schema, before: str, after: str, reads: bool, same: bool
) -> None:
    def listeners(enforcement: str, policy: str) -> dict[str, str]:
        mesh = mesh_with(enforcement)
        ruling = make_ruling(mesh, load_policies({"p.cedar": policy.format("/open")}, schema), schema)
        return bodies(snapshots_of(mesh, switches_of(ruling)), LISTENER)

    assert (listeners(before, POLICY) == listeners(after, READER if reads else POLICY)) is same


def test_without_a_switch_nothing_is_otherwise(mesh: Mesh) -> None:
    plain = replace(mesh, enforcements=())

    assert snapshots_of(plain, {}).config == snapshots_of(mesh, {}).config


@pytest.mark.parametrize("durability", ["async", "written"], ids=["local", "central"])
def test_the_table_that_envoy_gets(mesh: Mesh, schema: Schema, durability: str, request: pytest.FixtureRequest) -> None:
    snapshot = snapshots_of(mesh, switches_of(ruling_of(mesh, schema), durability))["shop-v1"]
    table = snapshot.of(ROUTE)["shop-v1/inbound"]

    made = envoy_api.to_dict(envoy_api.message("envoy.config.route.v3.RouteConfiguration").FromString(table.body))
    text = json.dumps(made).replace(switches_of(ruling_of(mesh, schema))["shop-v1/inbound"].revision, "REVISION")
    check_json(
        f"xds/deciding-{request.node.callspec.id}.json",
        json.loads(text),
        update=request.config.getoption("--update-golden"),
    )


def test_connections_are_counted_by_what_their_sidecar_decided(schema: Schema) -> None:
    declaration = declare(
        {"workloads.yaml": WORKLOADS.replace("port: 80}", "port: 80, protocol: tcp}"), "mesh/e.yaml": AUTO}
    )
    mesh = build(declaration, "cluster.local", assumed(declaration))
    listener = snapshots_of(mesh, switches_of(ruling_of(mesh, schema)))["shop-v1"].of(LISTENER)["shop-v1/inbound"]

    made = envoy_api.to_dict(envoy_api.message("envoy.config.listener.v3.Listener").FromString(listener.body))

    own = "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_engine_result)%"
    assert json.dumps(made).count(own) == 3  # of those that are opened, those that end, and the line of each


@pytest.mark.parametrize(
    ("federated", "peer"), [((), decision_line.OWN_PEER), (("partner.org",), decision_line.ANY_PEER)]
)
def test_who_asks_is_told_as_far_as_names_are_the_meshs_or_cannot_end_a_line(
    mesh: Mesh, schema: Schema, federated: tuple[str, ...], peer: str
) -> None:
    """Another authority may have written names that end a line and begin one of others."""
    mesh = replace(mesh, federated=frozenset(federated))
    listeners = snapshots_of(mesh, switches_of(ruling_of(mesh, schema)))["shop-v1"].of(LISTENER)
    made = envoy_api.message("envoy.config.listener.v3.Listener").FromString(listeners["shop-v1/inbound"].body)
    found = {}
    for chain in envoy_api.to_dict(made)["filter_chains"]:
        for one in chain["filters"][-1]["typed_config"]["access_log"]:
            if one["typed_config"].get("path") == PIPE:
                line = one["typed_config"]["log_format"]["text_format_source"]["inline_string"].split("\x1f")
                found[line[8]] = line[12]

    assert found == {"shop-v1/inbound": peer, "shop-v1/inbound/plaintext": decision_line.NO_PEER}


def test_tunnels_for_names_are_policyds_where_a_gateway_says_what_may_be_none(schema: Schema) -> None:
    named = WORKLOADS.replace("port: 80}\n  web", "port: 443, protocol: tls}\n  web")
    declaration = declare({"workloads.yaml": named, "mesh/e.yaml": AUTO})
    mesh = build(declaration, "cluster.local", assumed(declaration))
    by_name = '@id("n") permit (principal, action == Action::"connect", resource) when { context has sni };'
    ruling = make_ruling(mesh, load_policies({"p.cedar": by_name}, schema), schema)
    table = snapshots_of(mesh, switches_of(ruling))["shop-v1"].of(ROUTE)["shop-v1/inbound"]

    made = envoy_api.to_dict(envoy_api.message("envoy.config.route.v3.RouteConfiguration").FromString(table.body))

    routes = made["virtual_hosts"][0]["routes"]
    looks = [[one["name"] for one in route["match"].get("headers", [])] for route in routes]
    assert [(route.get("name", ""), headers) for route, headers in zip(routes, looks, strict=True)] == [
        (ruling.revision, ["x-policyd-sni"]),  # of the sample,
        (ruling.revision, ["x-policyd-sni"]),  # all others,
        ("", []),  # and policyd's
    ]
