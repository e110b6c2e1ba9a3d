"""Where a caller's requests go by locality: the nearest first where broken ones are found, or by shares."""

from __future__ import annotations

import pytest
import yaml

from policyd.mesh.health import with_health
from policyd.xds.resources import clusters
from tests.xds.resources.folders import mesh_of

WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80, locality: LOCALITY, labels: {version: v1, rack: a}}
  one:    {service: api, port: 80, locality: eu/eu-1/rack1, labels: {rack: a, version: v2}}
  two:    {service: api, port: 80, locality: eu/eu-1/rack2, labels: {rack: b, version: v1}}
  three:  {service: api, port: 80, locality: eu/eu-2/rack1, labels: {rack: a, version: v1}}
  four:   {service: api, port: 80, locality: us/us-1}
  five:   {service: api, port: 80, locality: us/us-1}
  six:    {service: api, port: 80, locality: asia}
"""
OUTLIER = "outlierDetection: {consecutive5xxErrors: 1}"
Group = tuple[int, int | None, str, list[str]]  # priority, weight, locality, instances


def groups(policy: str, here: str = "eu/eu-1/rack1") -> list[Group]:
    """What a caller at a place gets of a service with one instance at each of some places."""
    workloads = WORKLOADS.replace(", locality: LOCALITY", f", locality: {here}" if here else "")
    rule = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "it"},
        "spec": {"host": "api", "trafficPolicy": yaml.safe_load(f"{{{policy}}}"), "subsets": [{"name": "s"}]},
    }
    mesh = mesh_of({"workloads.yaml": workloads, "mesh/it.yaml": yaml.safe_dump(rule)})
    names = {one.ports[0].inbound_port: name for name, one in mesh.instances.items() if one.ports}
    found = clusters.endpoints(mesh, mesh.caller(mesh.instances["web-v1"]), mesh.services["api.default"], 80)
    return [
        (
            group.get("priority", 0),
            group.get("load_balancing_weight"),
            "/".join(group["locality"].values()),
            [names[one["endpoint"]["address"]["socket_address"]["port_value"]] for one in group["lb_endpoints"]],
        )
        for group in found["endpoints"]
    ]


ALL_EQUAL: list[Group] = [
    (0, None, "asia", ["six"]),
    (0, None, "eu/eu-1/rack1", ["one"]),
    (0, None, "eu/eu-1/rack2", ["two"]),
    (0, None, "eu/eu-2/rack1", ["three"]),
    (0, None, "us/us-1", ["five", "four"]),
]
NEAREST_FIRST: list[Group] = [
    (0, None, "eu/eu-1/rack1", ["one"]),
    (1, None, "eu/eu-1/rack2", ["two"]),
    (2, None, "eu/eu-2/rack1", ["three"]),
    (3, None, "asia", ["six"]),
    (3, None, "us/us-1", ["five", "four"]),
]


def test_without_outlier_detection_all_are_equal() -> None:
    assert groups("loadBalancer: {localityLbSetting: {failover: [{from: eu, to: us}]}}") == ALL_EQUAL


def test_with_it_the_nearest_are_first() -> None:
    assert groups(OUTLIER) == NEAREST_FIRST


@pytest.mark.parametrize(
    ("policy", "here"),
    [(OUTLIER, ""), (f"{OUTLIER}, loadBalancer: {{localityLbSetting: {{enabled: false}}}}", "eu/eu-1")],
)
def test_for_a_caller_without_a_place_or_where_it_is_off_all_are_equal(policy: str, here: str) -> None:
    assert groups(policy, here) == ALL_EQUAL


def test_priorities_have_no_gaps() -> None:
    assert groups(OUTLIER, "us/us-1") == [
        (0, None, "us/us-1", ["five", "four"]),
        (1, None, "asia", ["six"]),
        (1, None, "eu/eu-1/rack1", ["one"]),
        (1, None, "eu/eu-1/rack2", ["two"]),
        (1, None, "eu/eu-2/rack1", ["three"]),
    ]


def test_a_region_takes_over_where_it_is_told_to() -> None:
    found = groups(f"{OUTLIER}, loadBalancer: {{localityLbSetting: {{failover: [{{from: eu, to: us}}]}}}}")

    assert found == [*NEAREST_FIRST[:3], (3, None, "us/us-1", ["five", "four"]), (4, None, "asia", ["six"])]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("[rack]", {0: ["one", "three"], 1: ["six", "two", "five", "four"]}),
        ("[rack, version]", {0: ["three"], 1: ["one"], 2: ["six", "two", "five", "four"]}),
        ("[rack=b]", {0: ["two"], 1: ["six", "one", "three", "five", "four"]}),
        (
            "[topology.kubernetes.io/region, topology.kubernetes.io/zone]",
            {0: ["one", "two"], 1: ["three"], 2: ["six", "five", "four"]},
        ),
    ],
)
def test_labels_in_an_order_say_who_is_preferred(labels: str, expected: dict[int, list[str]]) -> None:
    found: dict[int, list[str]] = {}
    balancer = f"loadBalancer: {{localityLbSetting: {{failoverPriority: {labels}}}}}"
    for priority, _, _, names in groups(f"{OUTLIER}, {balancer}"):
        found.setdefault(priority, []).extend(names)

    assert found == expected


def shares(text: str, here: str = "eu/eu-1/rack1") -> dict[str, int | None]:
    policy = f"loadBalancer: {{localityLbSetting: {{distribute: [{text}]}}}}"
    return {place: weight for _, weight, place, _ in groups(policy, here)}


@pytest.mark.parametrize(
    ("text", "here", "expected"),
    [
        ("{from: eu/*, to: {eu/eu-1/rack1: 80, us/*: 20}}", "eu/eu-1/rack1", {"eu/eu-1/rack1": 8000, "us/us-1": 2000}),
        (
            "{from: eu/eu-1/*, to: {eu/eu-1/*: 90, '*': 10}}",
            "eu/eu-1/rack1",
            {"asia": 250, "eu/eu-1/rack1": 4500, "eu/eu-1/rack2": 4500, "eu/eu-2/rack1": 250, "us/us-1": 500},
        ),
        ("{from: us/*, to: {us: 100}}, {from: eu/*, to: {asia: 100}}", "eu/eu-2", {"asia": 10000}),
        (
            "{from: us/*, to: {us: 100}}",
            "eu/eu-2",
            {"asia": 1, "eu/eu-1/rack1": 1, "eu/eu-1/rack2": 1, "eu/eu-2/rack1": 1, "us/us-1": 2},
        ),
    ],
)
def test_shares_are_divided_by_size_and_the_rest_gets_nothing(text: str, here: str, expected: dict[str, int]) -> None:
    assert shares(text, here) == expected


def test_of_equal_instances_each_gets_its_weights_share_and_who_does_not_answer_none() -> None:
    workloads = WORKLOADS.replace("locality: asia}", "locality: asia, weight: 5}").replace(
        "five:   {service: api, port: 80, ", "five:   {service: api, port: 80, weight: 3, "
    )
    mesh = with_health(mesh_of({"workloads.yaml": workloads.replace(", locality: LOCALITY", "")}), ["one", "two"])
    found = clusters.endpoints(mesh, mesh.caller(mesh.instances["web-v1"]), mesh.services["api.default"], 80)
    names = {one.ports[0].inbound_port: name for name, one in mesh.instances.items()}

    assert {
        names[one["endpoint"]["address"]["socket_address"]["port_value"]]: one.get("load_balancing_weight")
        for group in found["endpoints"]
        for one in group["lb_endpoints"]
    } == {"three": None, "four": None, "five": 3, "six": 5}


def test_a_service_may_lead_to_what_does_not_answer() -> None:
    service = """\
apiVersion: v1
kind: Service
metadata: {name: api}
spec: {selector: {app: api}, ports: [{port: 80}], clusterIP: None, PUBLISHED}
"""

    def there(published: str) -> int:
        text = service.replace("PUBLISHED", f"publishNotReadyAddresses: {published}")
        files = {"workloads.yaml": WORKLOADS.replace(", locality: LOCALITY", ""), "mesh/it.yaml": text}
        mesh = mesh_of(files)
        mesh = with_health(mesh, mesh.instances)
        found = clusters.endpoints(mesh, mesh.caller(mesh.instances["web-v1"]), mesh.services["api.default"], 80)
        return sum(len(group["lb_endpoints"]) for group in found["endpoints"])

    assert (there("true"), there("false")) == (6, 0)


def test_an_instance_that_does_not_answer_is_still_one_that_callers_may_believe() -> None:
    mesh = mesh_of({"workloads.yaml": WORKLOADS.replace(", locality: LOCALITY", "")})
    caller, service = mesh.caller(mesh.instances["web-v1"]), mesh.services["api.default"]
    down = with_health(mesh, mesh.instances)

    assert clusters.endpoints(down, caller, service, 80)["endpoints"] == []
    assert clusters.outbound(down, caller, service, 80) == clusters.outbound(mesh, caller, service, 80)
