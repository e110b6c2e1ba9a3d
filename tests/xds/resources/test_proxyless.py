"""What applications without a sidecar are sent, as the golden file says and rule by rule."""

from __future__ import annotations

from typing import Any

import pytest

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE
from policyd.mesh.model import Mesh
from policyd.mesh.service_names import domains
from policyd.spiffe import SpiffeId
from policyd.xds.agreed import SDS_CLUSTER
from policyd.xds.proxyless import SERVER_LISTENER
from policyd.xds.resources.build import build_snapshots
from policyd.xds.resources.model import Guard
from policyd.xds.resources.proxyless import calls, clusters
from policyd.xds.snapshot import Snapshot
from tests.golden import check_json
from tests.xds.resources.folders import CONTROL, mesh_of
from tests.xds.resources.test_build import shown, whole

WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 8080, protocol: grpc, proxyless: true, inboundPort: 7000}
  api-v1: {service: api, port: 9080, protocol: grpc, labels: {version: v1}, inboundPort: 7001%s}
  api-v2: {service: api, port: 9080, protocol: grpc, labels: {version: v2}, inboundPort: 7002%s}
  page-v1: {service: page, port: 80}
"""
RULE = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec:
  host: api
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
  trafficPolicy: {%s}
"""
ROUTES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api}
spec:
  hosts: [api]
  http:
%s
"""
CALLED = "outbound|9080||api.default"


def folder(policy: str = "", routes: str = "", more: tuple[str, str] = ("", ""), resource: str = "") -> Mesh:
    rules = ROUTES % routes if routes else ""
    files = {"mesh/rule.yaml": RULE % policy, "mesh/routes.yaml": rules, "mesh/more.yaml": resource}
    return mesh_of({"workloads.yaml": WORKLOADS % more, **files})


def sent(mesh: Mesh, instance: str = "web-v1") -> Snapshot:
    return build_snapshots(mesh, CONTROL).check({SDS_CLUSTER})[instance]


def test_a_client_and_server_of_grpc_is_sent_what_the_golden_file_says(request: pytest.FixtureRequest) -> None:
    routes = """\
  - match: [{uri: {prefix: /shop.Api/}, headers: {x-user: {exact: tester}}}]
    route: [{destination: {host: api, subset: v2}}]
    timeout: 2s
  - route: [{destination: {host: api, subset: v1}, weight: 90}, {destination: {host: api, subset: v2}, weight: 10}]
    fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 1}}}
"""
    policy = "connectionPool: {http: {http2MaxRequests: 100}}, loadBalancer: {simple: LEAST_REQUEST}"
    allowed = {"name": "allowed", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty"}}
    mesh = folder(policy, routes)
    snapshot = build_snapshots(mesh, CONTROL, guards={"web-v1/inbound": Guard((allowed,))}).check({SDS_CLUSTER})[
        "web-v1"
    ]

    check_json("xds/proxyless.json", whole(snapshot), update=request.config.getoption("--update-golden"))


def test_a_listener_is_there_for_each_spelling_of_what_grpc_can_call_and_for_nothing_else() -> None:
    mesh = folder()
    spelled = [
        name
        for id_, port in (("web.default", 8080), ("api.default", 9080))
        for name in domains(mesh.services[id_], port, "default")
    ]
    served = [SERVER_LISTENER % where for where in ("127.0.0.1:7000", "0.0.0.0:7000", "[::]:7000")]

    assert sorted(sent(mesh).of(LISTENER)) == sorted((*spelled, *served))


def test_who_knows_less_by_a_sidecar_is_sent_less() -> None:
    scope = """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: it}
spec: {workloadSelector: {labels: {app: web}}, egress: [{hosts: ["./web.default.svc.cluster.local"]}]}
"""
    snapshot = sent(folder(resource=scope))

    assert list(snapshot.of(ROUTE)) == ["web.default:8080"]
    assert list(snapshot.of(CLUSTER)) == list(snapshot.of(ENDPOINT)) == ["outbound|8080||web.default"]
    assert not [name for name in snapshot.of(LISTENER) if name.startswith("api")]


def test_nobody_may_call_a_server_of_which_nothing_is_said() -> None:
    listener = shown(sent(folder()).of(LISTENER)[SERVER_LISTENER % "127.0.0.1:7000"])

    [chain] = listener["filter_chains"]
    allowed, router = chain["filters"][0]["typed_config"]["http_filters"]
    rbac = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
    assert allowed == {"name": "allowed", "typed_config": {"@type": rbac, "rules": {}}}  # ALLOW is not spelled out
    assert router["name"] == "envoy.filters.http.router"
    assert chain["transport_socket"]["typed_config"]["require_client_certificate"] is True


def test_to_a_caller_with_a_sidecar_it_is_a_service_as_any() -> None:
    workloads = WORKLOADS % ("", "")
    [one, other] = (
        shown(build_snapshots(mesh_of({"workloads.yaml": text}), CONTROL)["api-v1"].of(CLUSTER)[name])
        for name in ["outbound|8080||web.default"]
        for text in (workloads, workloads.replace(", proxyless: true", ""))
    )

    assert one == other


def test_a_guard_that_changes_changes_its_own_server_alone() -> None:
    mesh = folder(more=(", proxyless: true", ""))
    one = {"name": "allowed", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty"}}
    guards = {"web-v1/inbound": Guard((one,)), "api-v1/inbound": Guard((one,))}
    before = build_snapshots(mesh, CONTROL, guards=guards)
    other = Guard(({**one, "name": "other"},))
    after = build_snapshots(mesh, CONTROL, before, guards={**guards, "api-v1/inbound": other})

    assert after["web-v1"].versions == before["web-v1"].versions
    assert after["api-v1"].versions != before["api-v1"].versions
    assert (
        after["api-v1"].versions
        == build_snapshots(mesh, CONTROL, guards={**guards, "api-v1/inbound": other})["api-v1"].versions
    )


# ---- rule by rule


def cluster_of(mesh: Mesh) -> dict[str, Any]:
    caller = mesh.caller(mesh.instances["web-v1"])
    return clusters.cluster(mesh, caller, mesh.services["api.default"], 9080)


def choice(kind: str) -> dict[str, Any]:
    type_ = f"type.googleapis.com/envoy.extensions.load_balancing_policies.{kind}"
    return {"typed_extension_config": {"name": kind.partition(".")[0], "typed_config": {"@type": type_}}}


LEAST = choice("wrr_locality.v3.WrrLocality")
LEAST["typed_extension_config"]["typed_config"]["endpoint_picking_policy"] = {
    "policies": [choice("least_request.v3.LeastRequest"), choice("round_robin.v3.RoundRobin")]
}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", {"lb_policy": "ROUND_ROBIN"}),
        ("loadBalancer: {simple: ROUND_ROBIN}", {"lb_policy": "ROUND_ROBIN"}),
        ("loadBalancer: {simple: RANDOM}", {"lb_policy": "ROUND_ROBIN"}),
        ("loadBalancer: {simple: LEAST_REQUEST}", {"load_balancing_policy": {"policies": [LEAST]}}),
        (
            "loadBalancer: {consistentHash: {httpHeaderName: x-user}}",
            {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 1024}},
        ),
        (
            "loadBalancer: {consistentHash: {httpHeaderName: x-user, ringHash: {minimumRingSize: 16}}}",
            {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 16}},
        ),
    ],
)
def test_instances_are_chosen_as_far_as_grpc_can(policy: str, expected: dict[str, Any]) -> None:
    made = cluster_of(folder(policy))

    assert {name: one for name, one in made.items() if "lb" in name or "balancing" in name} == expected


@pytest.mark.parametrize(
    ("policy", "limit"),
    [("", 4_294_967_295), ("connectionPool: {http: {http2MaxRequests: 7}}", 7)],
)
def test_as_many_calls_may_be_under_way_as_is_declared(policy: str, limit: int) -> None:
    assert cluster_of(folder(policy))["circuit_breakers"] == {"thresholds": [{"max_requests": limit}]}


PLAIN = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: it}
spec: {selector: {matchLabels: {%s}}, mtls: {mode: %s}}
"""


@pytest.mark.parametrize(
    ("policy", "resource", "secured", "reached"),
    [
        ("", "", True, [7001, 7002]),
        ("", PLAIN % ("app: api", "PERMISSIVE"), True, [7001, 7002]),
        ("", PLAIN % ("app: api", "DISABLE"), False, [7001, 7002]),
        ("", PLAIN % ("version: v1", "DISABLE"), True, [7002]),
        ("tls: {mode: DISABLE}", PLAIN % ("app: api", "PERMISSIVE"), False, [7001, 7002]),
    ],
)
def test_a_service_is_called_by_mutual_tls_or_in_plain_text_never_by_guess(
    policy: str, resource: str, secured: bool, reached: list[int]
) -> None:
    mesh = folder(policy, resource=resource)
    caller = mesh.caller(mesh.instances["web-v1"])
    found = clusters.endpoints(mesh, caller, mesh.services["api.default"], 9080)["endpoints"]
    addresses = [one["endpoint"]["address"]["socket_address"] for group in found for one in group["lb_endpoints"]]

    assert ("transport_socket" in cluster_of(mesh), [one["port_value"] for one in addresses]) == (secured, reached)


def test_of_whom_nobody_serves_nobody_is_taken_for_it() -> None:
    mesh = folder()
    subset = clusters.cluster(mesh, mesh.caller(mesh.instances["web-v1"]), mesh.services["api.default"], 9080, "v1")
    context = subset["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]

    assert context["match_subject_alt_names"] == [{"exact": "spiffe://cluster.local/ns/default/sa/api"}]
    revoked = mesh_of({"workloads.yaml": WORKLOADS % ("", "")})
    object.__setattr__(revoked, "revoked", frozenset({SpiffeId.workload("cluster.local", "default", "api")}))
    none = cluster_of(revoked)["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]
    assert none["match_subject_alt_names"] == [{"exact": "spiffe://cluster.local"}]


@pytest.mark.parametrize(
    ("policy", "more", "expected"),
    [
        ("", ("", ""), [({}, 200, [7001, 7002])]),
        (
            "",
            (", weight: 3", ""),
            [({"sub_zone": "weight-1"}, 100, [7002]), ({"sub_zone": "weight-3"}, 300, [7001])],
        ),
        (
            "",
            (", locality: eu/a/x, weight: 3", ", locality: eu/a/x"),
            [
                ({"region": "eu", "zone": "a", "sub_zone": "x/weight-1"}, 100, [7002]),
                ({"region": "eu", "zone": "a", "sub_zone": "x/weight-3"}, 300, [7001]),
            ],
        ),
        (
            "",
            (", locality: eu/a, weight: 3", ", locality: us/b"),
            [({"region": "eu", "zone": "a"}, 300, [7001]), ({"region": "us", "zone": "b"}, 100, [7002])],
        ),
    ],
)
def test_each_instance_gets_its_weights_share(policy: str, more: tuple[str, str], expected: object) -> None:
    mesh = folder(policy, more=more)
    made = clusters.endpoints(mesh, mesh.caller(mesh.instances["web-v1"]), mesh.services["api.default"], 9080)

    def ports(group: dict[str, Any]) -> list[int]:
        return [one["endpoint"]["address"]["socket_address"]["port_value"] for one in group["lb_endpoints"]]

    found = [(one["locality"], one["load_balancing_weight"], ports(one)) for one in made["endpoints"]]
    assert found == expected


def route_of(mesh: Mesh) -> list[dict[str, Any]]:
    caller = mesh.caller(mesh.instances["web-v1"])
    [owner] = mesh.virtual_services or [None]
    [host] = calls.table(mesh, caller, owner, mesh.services["api.default"], 9080)["virtual_hosts"]
    found: list[dict[str, Any]] = host["routes"]
    return found


TO = "    route: [{destination: {host: api}}]"
RETRIES = {"retry_on": "cancelled,unavailable", "num_retries": 2}


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("uri: {exact: /a.B/C}", {"path": "/a.B/C"}),
        ("uri: {prefix: /a.B/}, ignoreUriCase: true", {"prefix": "/a.B/", "case_sensitive": False}),
        ('uri: {regex: "/a.*"}', {"safe_regex": {"regex": "/a.*"}}),
        ("method: {exact: POST}", {"prefix": "/"}),
        (
            "headers: {x-a: {}, x-b: {prefix: y}}",
            {
                "prefix": "/",
                "headers": [
                    {"name": "x-a", "string_match": {"safe_regex": {"regex": ".*"}}},
                    {"name": "x-b", "string_match": {"prefix": "y"}},
                ],
            },
        ),
        (
            "withoutHeaders: {x-a: {}}",
            {"prefix": "/", "headers": [{"name": "x-a", "present_match": True, "invert_match": True}]},
        ),
    ],
)
def test_calls_are_told_apart_as_by_sidecars(match: str, expected: dict[str, Any]) -> None:
    assert route_of(folder(routes=f"  - match: [{{{match}}}]\n{TO}"))[0]["match"] == expected


def test_a_prefix_of_whole_segments_is_an_expression() -> None:
    route = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: it}
spec:
  parentRefs: [{kind: Service, group: "", name: api}]
  rules: [{matches: [{path: {type: PathPrefix, value: /a.B}}], backendRefs: [{name: api, port: 9080}]}]
"""
    assert route_of(folder(resource=route))[0]["match"] == {"safe_regex": {"regex": r"/a\x{2e}B(?:/.*)?"}}


@pytest.mark.parametrize(
    ("policy", "rule", "expected"),
    [
        ("", "", {"cluster": CALLED, "retry_policy": RETRIES}),
        ("", "timeout: 3s", {"cluster": CALLED, "retry_policy": RETRIES,
                              "max_stream_duration": {"max_stream_duration": "3s"}}),
        ("", "retries: {attempts: 0}", {"cluster": CALLED}),
        ("", "retries: {attempts: 3, retryOn: 5xx}", {"cluster": CALLED}),
        (
            "",
            'retries: {attempts: 3, retryOn: "5xx, internal", backoff: 0.1s}',
            {
                "cluster": CALLED,
                "retry_policy": {
                    "retry_on": "internal",
                    "num_retries": 3,
                    "retry_back_off": {"base_interval": "0.1s"},
                },
            },
        ),
        ("", "timeout: 3s\n    fault: {delay: {fixedDelay: 1s, percentage: {value: 5}}}", {"cluster": CALLED}),
        (
            "loadBalancer: {consistentHash: {httpHeaderName: x-user}}",
            "",
            {"cluster": CALLED, "retry_policy": RETRIES, "hash_policy": [{"header": {"header_name": "x-user"}}]},
        ),
    ],
)  # fmt: skip
def test_a_call_goes_where_its_rule_says_and_waits_as_long(policy: str, rule: str, expected: dict[str, Any]) -> None:
    routes = f"  - route: [{{destination: {{host: api}}}}]\n    {rule}"

    assert route_of(folder(policy, routes))[0]["route"] == expected


def test_without_a_rule_everything_goes_to_the_service() -> None:
    routes = route_of(folder())

    assert routes == [{"match": {"prefix": "/"}, "route": {"cluster": CALLED, "retry_policy": RETRIES}}]
