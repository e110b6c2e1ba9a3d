"""Content names itself by its hash, and no Snapshot in force has a reference that leads nowhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, TYPE_PREFIX, Reference
from policyd.errors import EnvoyError, InvalidInput, Problem
from policyd.xds.snapshot import check_snapshot, differences, keeping, lay, make_snapshot, resource
from tests.xds.dialogue import cluster, endpoints, listener, route, snapshot

ADS = {"resource_api_version": "V3", "ads": {}}
SDS = {
    "resource_api_version": "V3",
    "api_config_source": {"api_type": "GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": "policyd-sds"}}]},
}
AUTHZ = TYPE_PREFIX + "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
HCM = TYPE_PREFIX + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
TCP = TYPE_PREFIX + "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
TLS = TYPE_PREFIX + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def filters(**typed: Any) -> dict[str, Any]:
    return {"name": "r", "filter_chains": [{"filters": [{"name": "f", "typed_config": typed}]}]}


def routes(**action: Any) -> dict[str, Any]:
    hosts = [{"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **action}]}]
    return {"name": "r", "virtual_hosts": hosts}


REFERENCES: list[tuple[str, str, Mapping[str, Any], set[tuple[str, str]]]] = [
    ("a static cluster", CLUSTER, {"name": "r", "type": "STATIC"}, set()),
    ("an EDS cluster", CLUSTER, {"name": "r", "type": "EDS"}, {(ENDPOINT, "r")}),
    (
        "an EDS cluster of another service name",
        CLUSTER,
        {"name": "r", "type": "EDS", "eds_cluster_config": {"service_name": "s", "eds_config": ADS}},
        {(ENDPOINT, "s")},
    ),
    (
        "a cluster whose secret comes by SDS",
        CLUSTER,
        {
            "name": "r",
            "transport_socket": {
                "name": "tls",
                "typed_config": {
                    "@type": TLS,
                    "common_tls_context": {
                        "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": SDS}]
                    },
                },
            },
        },
        {(CLUSTER, "policyd-sds")},
    ),
    (
        "a listener with routes by RDS and decisions by ext_authz",
        LISTENER,
        filters(
            **{"@type": HCM},
            rds={"route_config_name": "outbound", "config_source": ADS},
            http_filters=[
                {
                    "name": "authz",
                    "typed_config": {"@type": AUTHZ, "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}}},
                }
            ],
        ),
        {(ROUTE, "outbound"), (CLUSTER, "authz")},
    ),
    (
        "a TCP listener",
        LISTENER,
        filters(**{"@type": TCP}, stat_prefix="t", cluster="db"),
        {(CLUSTER, "db")},
    ),
    ("a route", ROUTE, routes(route={"cluster": "a"}), {(CLUSTER, "a")}),
    ("a redirect", ROUTE, routes(redirect={"path_redirect": "/x"}), set()),
    (
        "a split and mirrored route",
        ROUTE,
        routes(
            route={
                "weighted_clusters": {"clusters": [{"name": "a", "weight": 1}, {"name": "b", "weight": 1}]},
                "request_mirror_policies": [{"cluster": "m"}],
            }
        ),
        {(CLUSTER, "a"), (CLUSTER, "b"), (CLUSTER, "m")},
    ),
    (
        "a route whose metadata only looks like one",
        ROUTE,
        routes(direct_response={"status": 200}, metadata={"filter_metadata": {"x": {"cluster": "no"}}}),
        set(),
    ),
    ("a secret", SECRET, {"name": "r"}, set()),
]


@pytest.mark.parametrize(
    ("type_url", "fields", "expected"), [row[1:] for row in REFERENCES], ids=[r[0] for r in REFERENCES]
)
def test_a_resource_knows_what_it_needs(
    type_url: str, fields: Mapping[str, Any], expected: set[tuple[str, str]]
) -> None:
    assert resource(type_url, "r", fields).references == {Reference(*pair) for pair in expected}


def test_the_version_is_that_of_the_bytes() -> None:
    made = resource(CLUSTER, "r", {"name": "r", "connect_timeout": "1s"})
    assert made.version == hashlib.sha256(made.body).hexdigest()[:16]
    assert made == resource(CLUSTER, "r", {"connect_timeout": "1s", "name": "r"})


def test_a_resource_is_named_as_its_message() -> None:
    with pytest.raises(InvalidInput) as raised:
        resource(ENDPOINT, "r", {"cluster_name": "s"})
    assert raised.value.problems == (Problem("xds_name", "the resource `r` calls itself `s`"),)


def test_what_envoy_does_not_know_is_refused() -> None:
    with pytest.raises(EnvoyError):
        resource(CLUSTER, "r", {"name": "r", "no_such_field": 1})


def test_the_version_of_the_whole_depends_on_content_alone() -> None:
    parts = (cluster("a"), endpoints("a"), route("r"))
    assert make_snapshot(parts) == make_snapshot(reversed(parts))
    assert make_snapshot(parts).version != snapshot(cluster("a", "2"), *parts[1:]).version


def test_it_is_the_same_however_it_is_laid_together() -> None:
    parts = (cluster("a"), cluster("b"), endpoints("a"), route("r"))
    whole = make_snapshot(parts)

    for many in range(5):
        laid = make_snapshot(parts[many:], make_snapshot(parts[:many]))
        assert (laid.version, laid.versions) == (whole.version, whole.versions)
        assert {kind: dict(names) for kind, names in laid.resources.items()} == {
            kind: dict(names) for kind, names in whole.resources.items()
        }
        assert all(len(names) == len(list(names)) for names in laid.resources.values())


def test_what_is_shared_is_not_copied() -> None:
    shared = make_snapshot((cluster("a"), endpoints("a")))
    laid = make_snapshot((cluster("own"),), shared)

    assert laid.of(ENDPOINT) is shared.of(ENDPOINT)
    assert set(laid.of(CLUSTER)) == {"own", "a"}
    with pytest.raises(InvalidInput):
        make_snapshot((cluster("a", "2"),), shared)


def test_differences_are_what_came_went_or_changed() -> None:
    before = make_snapshot((cluster("own"),), make_snapshot((cluster("a"), cluster("b"), cluster("c")))).of(CLUSTER)
    after = make_snapshot((cluster("own", "2"),), make_snapshot((cluster("a"), cluster("b", "2"), cluster("d"))))

    assert differences(before, after.of(CLUSTER)) == {"own", "b", "c", "d"}
    assert differences(before, before) == frozenset()
    assert differences(make_snapshot((cluster("a"),)).of(CLUSTER), before) == {"own", "b", "c"}


def test_the_version_of_a_type_is_its_own() -> None:
    before, after = snapshot(cluster("a"), route("r")), snapshot(cluster("a"), route("r", "2"))
    assert before.version_of(CLUSTER) == after.version_of(CLUSTER)
    assert before.version_of(ROUTE) != after.version_of(ROUTE)
    assert before.version_of(LISTENER) == snapshot().version_of(CLUSTER)


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidInput) as raised:
        snapshot(cluster("a"), cluster("a", "2"), route("a"))
    assert raised.value.problems == (Problem("xds_duplicate", "two clusters are called `a`"),)


WHOLE = (cluster("a"), endpoints("a"), listener("l", routes="r", to=("a",)), route("r", to=("a", "static")))


def test_a_whole_snapshot_passes() -> None:
    whole = snapshot(*WHOLE)
    assert check_snapshot(whole, static_clusters={"static"}) is whole


@pytest.mark.parametrize(
    ("without", "problems"),
    [
        (0, ["`l` of the listeners needs clusters named `a`", "`r` of the routes needs clusters named `a`"]),
        (1, ["`a` of the clusters needs endpoints named `a`"]),
        (3, ["`l` of the listeners needs routes named `r`"]),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused(without: int, problems: list[str]) -> None:
    with pytest.raises(InvalidInput) as raised:
        check_snapshot(snapshot(*WHOLE[:without], *WHOLE[without + 1 :]), static_clusters={"static"})
    expected = tuple(Problem("xds_reference", f"{problem}, and there are none") for problem in problems)
    assert raised.value.problems == expected


def test_static_clusters_are_those_that_were_named() -> None:
    with pytest.raises(InvalidInput):
        check_snapshot(snapshot(*WHOLE))


def test_what_is_laid_together_of_the_same_again_is_the_very_same() -> None:
    own, below = snapshot(cluster("own"), listener("l")), snapshot(cluster("a"), endpoints("a"))
    before = lay(own, below)
    changed = keeping(snapshot(cluster("a"), endpoints("a", version="2")), below)
    after = lay(own, changed, before)
    assert after == lay(own, changed)
    assert [after.of(url) is before.of(url) for url in (CLUSTER, LISTENER, ENDPOINT)] == [True, True, False]
    assert differences(before.of(ENDPOINT), after.of(ENDPOINT)) == {"a"}


def test_a_name_in_both_is_refused_however_it_comes() -> None:
    own = snapshot(cluster("own"))
    before = lay(own, snapshot(cluster("a")))
    with pytest.raises(InvalidInput, match="two clusters are called `own`"):
        lay(own, snapshot(cluster("a"), cluster("own")), before)
