"""What has no exact form is refused at its place, with the reason; nothing is dropped."""

from __future__ import annotations

import pytest

from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.errors import InvalidInput
from policyd.mesh.model import Mesh
from tests.policy.istio.world import translated

HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n"


def rule(text: str) -> str:
    return f"{HEAD}spec:\n  rules:\n    - {text}\n"


def refused(text: str, mesh: Mesh, **options: bool) -> list[str]:
    """What is told of a file, without its name."""
    with pytest.raises(InvalidInput) as caught:
        translated(text, mesh, **options)
    return [str(problem).removeprefix("authz.yaml:") for problem in caught.value.problems]


def test_a_custom_policy_is_refused(mesh: Mesh) -> None:
    text = f"{HEAD}spec:\n  action: CUSTOM\n  provider: {{name: opa}}\n  rules: [{{}}]\n"

    assert refused(text, mesh) == [
        "5: `default/p`: a CUSTOM policy asks an external authorizer, whose answer nobody knows here; "
        "write what it decides as policies, then take it out"
    ]


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ("from: [{source: {principals: [spiffe://cluster.local/ns/a/sa/b]}}]", "is no identity that a caller can have"),
        ("from: [{source: {principals: [Cluster.Local/ns/a/sa/b]}}]", "is no identity that a caller can have"),
        ("from: [{source: {principals: ['*/sa/a.b']}}]", "reads the end of `*/sa/a.b` as a regular expression"),
        ("from: [{source: {notPrincipals: ['*/ns/*']}}]", "reads the end of `*/ns/*` as a regular expression"),
        ("from: [{source: {namespaces: [a.b]}}]", "`a.b` is no namespace"),
        ("from: [{source: {serviceAccounts: ['*']}}]", "`*` is no service account that is matched by its name alone"),
        ("from: [{source: {serviceAccounts: [a/b/c]}}]", "`a/b/c` is no service account"),
        ("from: [{source: {trustDomains: ['*.org']}}]", "`*.org` is no trust domain name"),
        ("from: [{source: {requestPrincipals: [alice]}}]", "`alice` names no user"),
        ("from: [{source: {ipBlocks: [10.0.0.0/33]}}]", "`10.0.0.0/33` is no address"),
        ("from: [{source: {ipBlocks: [10.0.0.0/255.0.0.0]}}]", "`10.0.0.0/255.0.0.0` is no address"),
        ("from: [{source: {ipBlocks: ['::ffff:10.0.0.1']}}]", "is an IPv4 address written as IPv6"),
        ("from: [{source: {remoteIpBlocks: [10.0.0.1]}}]", "a sidecar learns the client's address from"),
        ("when: [{key: remote.ip, notValues: [10.0.0.1]}]", "a sidecar learns the client's address from"),
        ("to: [{operation: {ports: ['65536']}}]", "`65536` is no port"),
        ("to: [{operation: {ports: [http]}}]", "`http` is no port"),
        ("to: [{operation: {hosts: [web]}}]", "`web` is another host in Istio once a port follows"),
        ("to: [{operation: {hosts: ['*.example.com']}}]", "`*.example.com` is another host in Istio"),
        ("to: [{operation: {hosts: ['web:8080']}}]", "policies see the host without its port"),
        ("to: [{operation: {paths: [admin]}}]", "no path that is decided about is like `admin`"),
        ("to: [{operation: {paths: ['/a//b']}}]", "has an empty segment"),
        ("to: [{operation: {paths: ['/a?x=1']}}]", "`/a?x=1` is not canonical, so no path is like it"),
        ("to: [{operation: {paths: ['/%7Eme']}}]", "paths are decided about as `/~me`"),
        ("to: [{operation: {paths: ['/caf%c3%a9*']}}]", "`/caf%c3%a9*` is not canonical"),
        ("to: [{operation: {paths: ['/a/{id}/{*}']}}]", "`/a/{id}/{*}` is no path template"),
        ("to: [{operation: {paths: ['/{**}/a/{*}']}}]", "`/{**}/a/{*}` is no path template"),
        ("to: [{operation: {paths: ['/{*}.txt']}}]", "`/{*}.txt` is no path template"),
        ("to: [{operation: {paths: ['{*}']}}]", "`{*}` is no path template"),
        ("to: [{operation: {paths: ['/a/{*}/b/{**}']}}]", "with `{**}` behind it, `{*}` cannot be held to one segment"),
        ("when: [{key: connection.sni, values: [a]}]", "an HTTP request has no SNI here"),
        ("when: [{key: 'experimental.envoy.filters.a[b]', values: [a]}]", "policies see no metadata of Envoy"),
        ("when: [{key: source.user, values: [a]}]", "`source.user` is no key that Istio knows"),
        ("when: [{key: 'request.headers[]', values: [a]}]", "`request.headers[]` is no key that Istio knows"),
        ("when: [{key: 'request.headers[:path]', values: [a]}]", "`:path` is no ordinary header"),
        ("when: [{key: 'request.headers[Authorization]', values: [a]}]", "do not see the header `authorization`"),
        ("when: [{key: 'request.auth.claims[a][b]', values: [c]}]", "a claim inside a claim is no tag of the user"),
        ("when: [{key: 'request.auth.claims[a]', values: ['b*']}]", "`b*`: a claim is a set here"),
        ("from: [{source: {principals: []}}]", "source.principals` must have at least 1 entries"),
        ("from: [{source: {}}]", "it has no field; write one, or remove `from`"),
        ("from: []", "`spec.rules[0].from` must have at least 1 entries"),
        ("to: [{operation: {paths: ['']}}]", "must have at least 1 characters"),
        ("to: [{operation: {ports: [80]}}]", "must be text, not the number 80; write it in quotes"),
        ("to: [{operation: {path: [/]}}]", "unknown field `path` in `spec.rules[0].to[0].operation`"),
        ("when: [{key: source.ip}]", "neither `values` nor `notValues` is given"),
        ("from: [{source: {serviceAccounts: [a], namespaces: [b]}}]", "service accounts stand with no principals"),
    ],
)  # fmt: skip
def test_a_part_without_an_exact_form_is_refused_with_its_line(part: str, what: str, mesh: Mesh) -> None:
    problems = refused(rule(part), mesh)

    assert len(problems) == 1
    assert problems[0].startswith("6: ")
    assert what in problems[0]


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ("action: DENY", "DENY without rules matches nothing; Istio refuses it too"),
        ("selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: web}]", "several of `selector`"),
        ("targetRefs: [{kind: Service, name: other}]", "nothing is decided about a service `other.default`; there are"),
        (
            "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]",
            "about a gateway `edge.default`",
        ),
        (
            "targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: x}]",
            "the kind `ServiceEntry` has no counter",
        ),
        ("targetRef: {kind: Service, name: web, namespace: shop}", "a target is in the policy's own namespace"),
        ("action: deny", "must be 'ALLOW', 'DENY', 'AUDIT' or 'CUSTOM'"),
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused(spec: str, what: str, mesh: Mesh) -> None:
    problems = refused(f"{HEAD}spec: {{{spec}}}\n", mesh)

    assert len(problems) == 1
    assert what in problems[0]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("kind: PeerAuthentication\n", "1: the kind `PeerAuthentication` is no AuthorizationPolicy"),
        ("[1]\n", "1: a list of 1 is no AuthorizationPolicy"),
        ("kind: List\nitems: 3\n", "2: `items` must be a list"),
        (f"{HEAD}---\n{HEAD}", "7: `default/p`: there are two of this name; the other one is authz.yaml:3"),
        (HEAD.replace("v1", "v1alpha1"), "1: `apiVersion` must be"),
        (
            HEAD.replace("{name: p}", '{name: p, annotations: {istio.io/dry-run: "perhaps"}}'),
            "3: `metadata`: the annotation",
        ),
    ],
)
def test_what_is_no_policy_is_refused(text: str, what: str, mesh: Mesh) -> None:
    assert refused(text, mesh)[0].startswith(what)


def test_everything_wrong_is_told_at_once(mesh: Mesh) -> None:
    text = rule("from: [{source: {namespaces: [a.b, c.d]}}]\n      when: [{key: connection.sni, values: [a]}]")

    assert [problem.partition(": ")[0] for problem in refused(text, mesh)] == ["6", "6", "7"]


def test_a_rule_that_is_too_large_is_refused(mesh: Mesh) -> None:
    paths = ", ".join(f"/a{at}*" for at in range(300))

    problems = refused(rule(f"to: [{{operation: {{paths: [{paths}]}}}}]"), mesh)

    assert problems == [
        "6: `default/p`: the rule is too large: a policy has over 500 operators; "
        "split it into several rules; any one that matches does"
    ]


def test_many_exact_values_are_one_set(mesh: Mesh, schema: Schema) -> None:
    paths = ", ".join(f"/a{at}" for at in range(2000))

    made = translated(rule(f"to: [{{operation: {{paths: [{paths}]}}}}]"), mesh)

    load_policies(made.files, schema)


def test_hosts_are_taken_without_port_if_one_says_so(mesh: Mesh) -> None:
    text = rule("to: [{operation: {hosts: [Web, '*.example.com']}}]")

    made = translated(text, mesh, hosts_without_port=True)

    assert (
        'when { context.request.host == "web" || context.request.host like "*.example.com" };'
        in made.files["all_of_default.cedar"]
    )


def test_a_file_name_cannot_begin_a_policy(mesh: Mesh, schema: Schema) -> None:
    from policyd.authz.path import canonical_path
    from policyd.policy.istio.read import read_policies
    from policyd.policy.istio.translate import Options, translate
    from tests.policy.istio.world import DOMAINS

    name = "a\npermit (principal, action, resource);\r// .yaml"
    made = translate(read_policies({name: rule("to: [{operation: {methods: [GET]}}]")}, "default"), mesh,
                     Options("default", DOMAINS), canonical_path)  # fmt: skip

    ids = {policy.id for policy in load_policies(made.files, schema).policies}
    assert ids == {"p", "open:cart.shop", "open:edge.istio-system"}


def test_what_needs_care_is_noted(mesh: Mesh) -> None:
    text = (
        rule("to: [{operation: {methods: [get], paths: ['/a*b']}}]")
        + "---\n"
        + HEAD.replace("name: p", "name: q")
        + "spec: {selector: {matchLabels: {app: none}}}\n"
    )

    notes = [note.message for note in translated(text, mesh).notes]

    assert notes == [
        "`default/p`: the method `get` is not `GET`, as in Istio",
        "`default/p`: the star inside `/a*b` is a mere character, as in Istio",
        "`default/q`: it selects no workload of the mesh, so it decides nothing",
    ]


def test_a_list_of_kubectl_is_read_with_what_a_cluster_adds(mesh: Mesh) -> None:
    text = """apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
  - apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: p, namespace: shop, uid: 1-2, generation: 3, creationTimestamp: 2026-01-01T00:00:00Z}
    spec: {rules: [{to: [{operation: {ports: ["x"]}}]}]}
    status: {conditions: []}
"""

    assert refused(text, mesh) == ["8: `shop/p`: `x` is no port; write a number from 0 to 65535, in quotes"]
    assert set(translated(text.replace('"x"', '"80"'), mesh).files) == {
        "all_of_shop.cedar", "api.cedar", "edge.istio-system.cedar", "web.cedar",
    }  # fmt: skip
