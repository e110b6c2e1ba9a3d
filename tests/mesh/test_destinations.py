"""DestinationRules: whose holds for whom, how several become one, and what is refused."""

from __future__ import annotations

import pytest

from policyd.mesh.destinations import Destination
from policyd.mesh.istio.traffic_policy import TrafficPolicy, effective
from policyd.mesh.model import Mesh
from tests.mesh.sample import GOOD, meshed, problems

RULE = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec:
  host: api
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    portLevelSettings: [{port: {number: 8080}, connectionPool: {http: {maxRetries: 3}}}]
  subsets:
    - {name: v1, labels: {version: v1}}
    - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
"""


def rule(name: str, namespace: str = "default", host: str = "api.default", connections: int = 1, **more: str) -> str:
    """A rule that can be told by its number of connections."""
    spec = "".join(f", {key}: {value}" for key, value in more.items())
    pool = f"trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {connections}}}}}}}"
    return (
        f"---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: "
        f"{namespace}}}\nspec: {{host: '{host}', {pool}{spec}}}\n"
    )


def mesh_with(*rules: str) -> Mesh:
    return meshed({**GOOD, "mesh/rules.yaml": "".join(rules)})


def connections(mesh: Mesh, namespace: str, **labels: str) -> int | None:
    """The limit that holds for a caller towards `api`."""
    found = mesh.destination(mesh.destinations.caller(namespace, labels), mesh.services["api.default"])
    return found.policy.connection_pool.tcp.max_connections if found.policy and found.policy.connection_pool else None


LOOKUPS: list[tuple[str, list[str], str, dict[str, str], int | None]] = [
    ("nothing declared", [], "default", {}, None),
    ("the service's namespace", [rule("a")], "shop", {}, 1),
    ("the caller's own before the service's", [rule("a"), rule("b", "shop", connections=2)], "shop", {}, 2),
    ("another caller's rule is not his", [rule("a"), rule("b", "shop", connections=2)], "far", {}, 1),
    ("the root namespace at last", [rule("r", "istio-system", connections=3)], "shop", {}, 3),
    ("the service's before the root's", [rule("a"), rule("r", "istio-system", connections=3)], "shop", {}, 1),
    (
        "a rule that is for its own namespace only",
        [rule("a", exportTo="[.]"), rule("r", "istio-system", connections=3)],
        "shop",
        {},
        3,
    ),
    ("which its own callers see", [rule("a", exportTo="[.]")], "default", {}, 1),
    ("exported to one namespace", [rule("a", exportTo="[shop]")], "shop", {}, 1),
    ("and to no other", [rule("a", exportTo="[shop]")], "far", {}, None),
    ("a wide host", [rule("w", host="*.default.svc.cluster.local", connections=4)], "shop", {}, 4),
    ("the name before a wide host", [rule("w", host="*.cluster.local", connections=4), rule("a")], "shop", {}, 1),
    (
        "the narrower of two wide hosts",
        [rule("w", host="*.local", connections=4), rule("n", host="*.default.svc.cluster.local", connections=5)],
        "shop",
        {},
        5,
    ),
    ("everything", [rule("w", host="*", connections=6)], "shop", {}, 6),
    (
        "a rule for some callers",
        [rule("a"), rule("s", connections=7, workloadSelector="{matchLabels: {app: web}}")],
        "default",
        {"app": "web", "version": "v1"},
        7,
    ),
    (
        "and not for the others",
        [rule("a"), rule("s", connections=7, workloadSelector="{matchLabels: {app: web}}")],
        "default",
        {"app": "api"},
        1,
    ),
    (
        "a selector ends at the border of its namespace",
        [rule("a"), rule("s", connections=7, workloadSelector="{matchLabels: {app: web}}")],
        "shop",
        {"app": "web"},
        1,
    ),
]


@pytest.mark.parametrize(
    ("rules", "namespace", "labels", "expected"), [one[1:] for one in LOOKUPS], ids=[one[0] for one in LOOKUPS]
)
def test_the_rule_that_holds_for_a_caller(
    rules: list[str], namespace: str, labels: dict[str, str], expected: int | None
) -> None:
    assert connections(mesh_with(*rules), namespace, **labels) == expected


def found(mesh: Mesh) -> Destination:
    return mesh.destination(mesh.destinations.caller("default", {}), mesh.services["api.default"])


def test_rules_of_one_host_become_one() -> None:
    more = RULE.replace("name: api}", "name: more}").replace("v1", "v3").partition("  trafficPolicy")[0]
    more += "  subsets: [{name: canary, labels: {version: v2}}]\n"

    merged = found(mesh_with(RULE, "---\n", more.replace("networking.istio.io/v3", "networking.istio.io/v1")))

    assert list(merged.subsets) == ["canary", "v1", "v2"]
    assert merged.policy is not None


def test_a_subset_overrides_section_by_section_and_a_port_replaces_all() -> None:
    destination = found(mesh_with(RULE))

    assert destination.policy_of(80, "v1").load_balancer.simple == "ROUND_ROBIN"  # type: ignore[union-attr]
    assert destination.policy_of(80, "v2").load_balancer.simple == "RANDOM"  # type: ignore[union-attr]
    assert destination.policy_of(8080).load_balancer is None
    assert destination.policy_of(8080).connection_pool.http.max_retries == 3  # type: ignore[union-attr]
    v2 = destination.policy_of(8080, "v2")
    assert (v2.load_balancer.simple, v2.connection_pool.http.max_retries) == ("RANDOM", 3)  # type: ignore[union-attr]


def test_the_port_of_a_subset_inherits_nothing() -> None:
    whole = TrafficPolicy.model_validate({"outlierDetection": {"interval": "1s"}, "loadBalancer": {"simple": "RANDOM"}})
    own = {"portLevelSettings": [{"port": {"number": 80}, "connectionPool": {"http": {"maxRetries": 1}}}]}

    policy = effective(whole, TrafficPolicy.model_validate(own), 80)

    assert (policy.load_balancer, policy.outlier_detection) == (None, None)
    assert policy.connection_pool is not None


def test_callers_that_no_rule_tells_apart_are_one_class() -> None:
    mesh = mesh_with(rule("s", workloadSelector="{matchLabels: {version: v2}}"))
    instances = mesh.instances

    assert mesh.caller(instances["web-v1"]) == mesh.caller(instances["api-v1"])
    assert mesh.caller(instances["api-v2"]) != mesh.caller(instances["api-v1"])


REFUSED: list[tuple[str, str, str]] = [
    (
        "host: api",
        "host: apy",
        "mesh/rules.yaml:5: the host `apy` is no service of the mesh; did you mean `api.default`?",
    ),
    (
        "host: api",
        "host: '*.far.svc.cluster.local'",
        "mesh/rules.yaml:5: the host `*.far.svc.cluster.local` is no service of the mesh;"
        " name a service, or several as in `*.default.svc.cluster.local`",
    ),
    ("number: 8080", "number: 81", "mesh/rules.yaml:8: port 81 is none of `api`; it has 8080"),
    ("name: v2,", "name: v1,", "mesh/rules.yaml:4: `spec`: the subset `v1` is there twice; rename one"),
    (
        "simple: ROUND_ROBIN",
        "simple: PASSTHROUGH, localityLbSetting: {enabled: true}",
        "mesh/rules.yaml:7: `spec.trafficPolicy.loadBalancer`: `PASSTHROUGH` looks at no locality; choose another, or"
        " leave `localityLbSetting` out",
    ),
    (
        "simple: ROUND_ROBIN",
        "simple: PASSTHROUGH, warmup: {duration: 10s}",
        "mesh/rules.yaml:7: `spec.trafficPolicy.loadBalancer`: only `LEAST_REQUEST` and `ROUND_ROBIN` warm up;"
        " choose one, or leave `warmup` out",
    ),
    (
        "simple: ROUND_ROBIN",
        "simple: PASSTHROUGH, consistentHash: {useSourceIp: true}",
        "mesh/rules.yaml:7: `spec.trafficPolicy.loadBalancer`: both `simple` and `consistentHash`; keep one",
    ),
    (
        "loadBalancer: {simple: ROUND_ROBIN}",
        "tls: {mode: DISABLE}",
        "mesh/rules.yaml:7: `DISABLE` towards `api`, whose sidecars want the mesh's mutual TLS;"
        " leave `tls` out, or write `ISTIO_MUTUAL`",
    ),
    (
        "loadBalancer: {simple: ROUND_ROBIN}",
        "tunnel: {targetHost: x}",
        "mesh/rules.yaml:7: `spec.trafficPolicy.tunnel.targetPort` is missing; add it",
    ),
    (
        "loadBalancer: {simple: ROUND_ROBIN}",
        "tunnel: {protocol: POST, targetHost: x, targetPort: 1}",
        "mesh/rules.yaml:7: `spec.trafficPolicy.tunnel.protocol`: connections travel as CONNECT here, not as POST;"
        " write `CONNECT`, or leave it out",
    ),
    (
        "loadBalancer: {simple: ROUND_ROBIN}",
        "tunnel: {targetHost: 'x:1', targetPort: 1}",
        "mesh/rules.yaml:7: `spec.trafficPolicy.tunnel.targetHost`: `x:1` is no host name; use lower-case letters,"
        " digits, dots and dashes, and no port",
    ),
    (
        "loadBalancer: {simple: ROUND_ROBIN}",
        "tunnel: {targetHost: x, targetPort: 1}",
        "mesh/rules.yaml:7: `api` is in the mesh, where connections travel as tunnels already; take it out; name a"
        " forward proxy outside as `host`",
    ),
    (
        "loadBalancer: {simple: ROUND_ROBIN}",
        "outlierDetection: {consecutiveErrors: 5}",
        "mesh/rules.yaml:7: field `consecutiveErrors` of DestinationRule is not supported in"
        " `spec.trafficPolicy.outlierDetection`; Istio no longer reads it; write `consecutive5xxErrors` or"
        " `consecutiveGatewayErrors`",
    ),
    (
        "loadBalancer: {simple: ROUND_ROBIN}",
        "proxyProtocol: {version: V2}",
        "mesh/rules.yaml:7: `api` is in the mesh, whose sidecars take no header of the PROXY protocol;"
        " take it out; an identity says who calls",
    ),
    (
        "simple: ROUND_ROBIN",
        "consistentHash: {useSourceIp: true, httpHeaderName: x}",
        "mesh/rules.yaml:7: `spec.trafficPolicy.loadBalancer.consistentHash`: give exactly one of `httpHeaderName`,"
        " `httpCookie`, `httpQueryParameterName` and `useSourceIp: true`",
    ),
    (
        "simple: ROUND_ROBIN",
        "consistentHash: {useSourceIp: true, maglev: {tableSize: 100}}",
        "mesh/rules.yaml:7: `spec.trafficPolicy.loadBalancer.consistentHash.maglev`: the table of"
        " Maglev has a prime number of"
        " places, and 100 is none; take 65537",
    ),
    (
        "simple: ROUND_ROBIN",
        "simple: RANDOM, warmup: {duration: 10s}",
        "mesh/rules.yaml:7: `spec.trafficPolicy.loadBalancer`: only `LEAST_REQUEST` and `ROUND_ROBIN` warm up;"
        " choose one, or leave `warmup` out",
    ),
    (
        "simple: ROUND_ROBIN",
        "localityLbSetting: {distribute: [{from: eu/*, to: {eu/a: 70, eu/b: 20}}]}",
        "mesh/rules.yaml:7: `spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0]`: the"
        " shares of `eu/*` add up"
        " to 90; make it 100",
    ),
    (
        "simple: ROUND_ROBIN",
        "localityLbSetting: {failover: [{from: eu, to: eu}]}",
        "mesh/rules.yaml:7: `spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0]`: `eu` fails over to itself;"
        " name another region",
    ),
    (
        "loadBalancer: {simple: ROUND_ROBIN}",
        "connectionPool: {tcp: {connectTimeout: 0s}}",
        "mesh/rules.yaml:7: `spec.trafficPolicy.connectionPool.tcp.connectTimeout`: the shortest duration is `1ms`;"
        " write a longer one, or leave it out",
    ),
    (
        "loadBalancer: {simple: ROUND_ROBIN}",
        "outlierDetection: {consecutiveLocalOriginFailures: 5}",
        "mesh/rules.yaml:7: `spec.trafficPolicy.outlierDetection`: `consecutiveLocalOriginFailures` needs"
        " `splitExternalLocalOriginErrors: true`; add it",
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), REFUSED, ids=[one[1][:60] for one in REFUSED])
def test_a_mistake_is_refused_where_it_is(old: str, new: str, message: str) -> None:
    assert old in RULE

    assert problems({**GOOD, "mesh/rules.yaml": RULE.replace(old, new)}) == [message]


def test_plain_text_is_for_who_takes_it() -> None:
    peers = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: api}
spec: {selector: {matchLabels: {app: api}}, mtls: {mode: PERMISSIVE}}
"""
    plain = RULE.replace("loadBalancer: {simple: ROUND_ROBIN}", "tls: {mode: DISABLE}")

    assert meshed({**GOOD, "mesh/rules.yaml": plain, "mesh/peers.yaml": peers}).destination_rules
    wide = plain.replace("host: api", "host: '*.default.svc.cluster.local'")
    assert problems({**GOOD, "mesh/rules.yaml": wide, "mesh/peers.yaml": peers})[0].startswith(
        "mesh/rules.yaml:7: `DISABLE` towards `"
    )


def test_rules_that_contradict_each_other_are_refused() -> None:
    again = RULE.replace("name: api}", "name: again}")

    assert problems({**GOOD, "mesh/rules.yaml": f"{RULE}---\n{again}---\n{RULE}"})[:3] == [
        "mesh/rules.yaml:18: the host `api` has its `trafficPolicy` in the DestinationRule `default/api` already;"
        " write it into one of them",
        "mesh/rules.yaml:22: the subset `v1` of `api` is in the DestinationRule `default/api` already;"
        " rename or remove one",
        "mesh/rules.yaml:23: the subset `v2` of `api` is in the DestinationRule `default/api` already;"
        " rename or remove one",
    ]


@pytest.mark.parametrize("text", ["eu", "eu/eu-1", "eu/eu-1/rack2"])
def test_a_workload_has_a_locality(text: str) -> None:
    files = {
        **GOOD,
        "workloads.yaml": GOOD["workloads.yaml"].replace("{version: v1}", f"{{version: v1}}, locality: {text}"),
    }

    assert str(meshed(files).instances["api-v1"].locality) == text


@pytest.mark.parametrize("text", ["eu/", "/eu", "a/b/c/d", "'eu eu'", "eu/*"])
def test_a_locality_of_another_form_is_refused(text: str) -> None:
    files = {
        **GOOD,
        "workloads.yaml": GOOD["workloads.yaml"].replace("{version: v1}", f"{{version: v1}}, locality: {text}"),
    }
    [problem] = problems(files)

    assert "is no locality; write `region/zone/subzone`" in problem
