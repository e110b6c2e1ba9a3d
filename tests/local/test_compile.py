"""Policies at one listener: what is compiled to what, what is not and why, and the filter that comes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policyd import envoy_api
from policyd.authz.ruling import Ruling, make_ruling
from policyd.cedar.policies import load_policies, set_of
from policyd.cedar.schema import Schema
from policyd.local.compile import Compiled, Compiler, Left, listeners_of
from policyd.local.envoy import rbac
from policyd.local.logic import words_of
from policyd.local.told import Row, alike, readable, rows, size
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.placement import assumed
from tests.fakes.issuer import Issuer
from tests.golden import check_json, check_text
from tests.local import world

HTTP = 'action in Action::"http"'
WEB, API, SHOP = (f"spiffe://cluster.local/ns/{name}" for name in ("default/sa/web", "back/sa/api", "default/sa/shop"))
INBOUND = "shop-v1/inbound"


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    """Services, identities, labels and groups."""
    return world.mesh_of(tokens="")


def ruling_of(mesh: Mesh, schema: Schema, text: str) -> Ruling:
    return make_ruling(mesh, load_policies({"shop.cedar": text}, schema), schema)


def compiled(mesh: Mesh, schema: Schema, text: str, listener: str = INBOUND) -> Compiled:
    return Compiler(ruling_of(mesh, schema, text)).compile(mesh.listeners[listener])


CONDITIONS = [
    ('context.request.path == "/a@b"', 'path is "/a@b"'),
    ('context.request.path == "/a b"', "never"),
    ('context.request.path like "/a*"', 'path like "/a*"'),
    ('["/a", "/b"].contains(context.request.path)', 'path is "/a" or path is "/b"'),
    ("context.request.segments == 2", "path has at most 2 segments and not (path has at most 1 segments)"),
    ("context.request.segments > 0", "always"),
    ('context.request.method == "PURGE"', 'method is "PURGE"'),
    ('context.request.host == "Shop"', "never"),
    ('context.request.headers.hasTag("x-a")', "there is a header x-a"),
    (
        'context.request.headers.hasTag("x-a") && context.request.headers.getTag("x-a") != "1"',
        'there is a header x-a and not (header x-a is "1")',
    ),
    ('context.source.ip.isInRange(ip("10.0.0.0/8"))', "source in 10.0.0.0/8"),
    ('context.client_ip.isInRange(ip("2001:db8::/32"))', "never"),
    ("context.source.ip.isIpv6()", "never"),
    ("context.destination.port == 9080", "always"),
    ('context.destination.labels.hasTag("version") && context.destination.labels.getTag("version") == "v2"', "never"),
    ("context has user", "never"),
    ('resource is Service && resource.hasTag("app")', "always"),
    ('principal is Workload && principal in Group::"fronts"', f"caller is one of {API}, {WEB}"),
    ('principal is Workload && principal in Namespace::"back"', "caller in namespace back"),
    ('principal is Workload && principal in Namespace::"partner.org/x"', "never"),
    ('principal is Workload && principal in TrustDomain::"cluster.local"', "always"),
    ('principal is Workload && principal.hasTag("team") && principal.getTag("team") == "red"', None),
    ("9223372036854775807 + 1 > 0", "never"),
    ("9223372036854775807 + 1 > 0 || true", "never"),
    ("true || 9223372036854775807 + 1 > 0", "always"),
    ("if 1 < 2 then true else 9223372036854775807 + 1 > 0", "always"),
]


@pytest.mark.parametrize(("condition", "words"), CONDITIONS)
def test_conditions_are_folded_for_the_one_destination(
    mesh: Mesh, schema: Schema, condition: str, words: str | None
) -> None:
    text = f'@id("p") permit (principal is Workload, {HTTP}, resource is Service) when {{ {condition} }};'
    found = compiled(mesh, schema, text)
    assert (found.left, found.obstacles) == ((), ())
    told = words_of(found.permits[0].when) if found.permits else "never"
    if words is None:  # each who bears the label
        bearers = f"caller is one of {API}, {SHOP}"
        assert told.endswith(bearers)
    else:
        assert told == words


SCOPES = [
    ("principal, action, resource", "always"),
    ("principal is Unauthenticated, action, resource", "never"),
    (f'principal == Workload::"{WEB}", action, resource', f"caller is {WEB}"),
    ('principal == Workload::"web", action, resource', "never"),
    ('principal in Group::"nobody", action, resource', "never"),
    ('principal, action in Action::"read", resource', "method is one of GET, HEAD, OPTIONS"),
    ('principal, action == Action::"connect", resource', "never"),
    ('principal, action, resource == Service::"web.default"', None),
    ('principal, action, resource in Group::"shops"', "always"),
]


@pytest.mark.parametrize(("scope", "words"), SCOPES)
def test_scopes_are_folded_for_the_one_destination(mesh: Mesh, schema: Schema, scope: str, words: str | None) -> None:
    found = compiled(mesh, schema, f'@id("p") permit ({scope});')
    told = [words_of(one.when) for one in found.permits]
    assert told == ([words] if words not in (None, "never") else [])
    assert found.unused == ((("p", "permit"),) if words == "never" else ())  # of another service: not even looked at


LEFT = [
    ('context.time > datetime("2026-01-01T00:00:00Z")', "`context.time`"),
    ('datetime("2026-01-01T00:00:00Z") < context.time', "`datetime`"),
    ("context.request.segments + 1 == 2", "arithmetic with what only the request tells"),
    ("context.request.segments == 101", "a count of over 100 segments"),
    ('context.request.path like "/a%*3"', "a pattern that may divide an escape"),
    ('context.request.path like "/a%2**5"', "a pattern that may divide an escape"),
    (
        'context.request.headers.hasTag("x-a") && context.request.headers.getTag("x-a") == "a!"',
        "a `!` in a header, which policies also see in the place of what is no text",
    ),
    ('context.request.headers.hasTag("host")', "the header `host`"),
    ("context.request.path == context.request.method", "two values of which neither is known beforehand"),
    ('Workload::"nobody" in Group::"all"', 'what the mesh does not know, `Workload::"nobody"`'),
    ("{a: 1}.a == 1", "a record"),
    ('decimal("1.0") == decimal("1.0")', "`decimal`"),
]


@pytest.mark.parametrize(("condition", "why"), LEFT)
def test_what_is_not_proven_is_left_with_the_part_that_prevents_it(
    mesh: Mesh, schema: Schema, condition: str, why: str
) -> None:
    text = f'// a policy\n@id("p")\nforbid (principal, {HTTP}, resource is Service)\nwhen {{\n'
    found = compiled(mesh, schema, text + f'  context.request.path == "/a" &&\n  {condition}\n}};')
    part = condition.rpartition(" && ")[2]
    line = 6
    assert found.left == (Left("p", "forbid", why, part, "shop.cedar", line),)
    assert not found.is_exact
    with pytest.raises(ValueError, match=r"^`shop-v1/inbound` is not decided in its proxy$"):
        rbac(found)


def test_what_stands_behind_a_part_that_settles_it_prevents_nothing(mesh: Mesh, schema: Schema) -> None:
    never = 'context has user && context.time > datetime("2026-01-01T00:00:00Z")'
    found = compiled(mesh, schema, f'@id("p") permit (principal, {HTTP}, resource) when {{ {never} }};')
    assert (found.left, found.unused) == ((), (("p", "permit"),))


def test_a_forbid_that_fails_denies_and_a_permit_that_fails_does_not_apply(mesh: Mesh, schema: Schema) -> None:
    fails = f'(principal, {HTTP}, resource) when {{ context.request.path == "/a" && 9223372036854775807 + 1 > 0 }};'
    text = f'@id("f") forbid {fails}\n@id("p") permit {fails}'
    found = compiled(mesh, schema, text)
    assert [words_of(one.when) for one in found.failing] == ['path is "/a"']
    assert (found.forbids, found.permits, found.unused) == ((), (), (("p", "permit"),))


def test_strangers_have_no_certificate_that_is_asked_about(mesh: Mesh, schema: Schema) -> None:
    scopes = {"p": "principal", "q": 'principal in Group::"all"'}
    text = "\n".join(f'@id("{name}") permit ({who}, action, resource);' for name, who in scopes.items())
    found = compiled(mesh, schema, text, "shop-v1/inbound/plaintext")
    assert (found.verified, [one.policy for one in found.permits], found.unused) == ("", ["p"], (("q", "permit"),))
    assert [done for done, _, _ in readable(found)] == ["503", "400", "allow"]


def test_filters_have_a_bound(mesh: Mesh, schema: Schema) -> None:
    listed = ", ".join(f'"/{number}"' for number in range(500))
    one = f"permit (principal, {HTTP}, resource) when {{ [{listed}].contains(context.request.path) }};"
    text = "\n".join(f'@id("p{number}") {one}' for number in range(9))
    assert compiled(mesh, schema, text).obstacles == ("a filter of 4,500 tests, and at most 4,096 are sent",)


def test_a_policy_has_a_bound_however_it_is_nested(mesh: Mesh, schema: Schema) -> None:
    condition = 'context.request.path == "/a"'
    for depth in range(30):
        one = f'context.request.path == "/{depth}"'
        condition = f"if ({condition}) then {one} || 9223372036854775807 + 1 > 0 else !({one})"
    text = f'@id("p") permit (principal, {HTTP}, resource) when {{ {condition} }};'
    (left,) = compiled(mesh, schema, text).left
    assert left.why == "what takes over 4,096 tests"


def test_a_condition_is_nested_no_deeper_than_envoy_reads(mesh: Mesh, schema: Schema) -> None:
    permit = f'@id("p") permit (principal, {HTTP}, resource) when {{{{ {{}} }}}};'
    deepest, deeper = (permit.format(world.nested(depth)) for depth in (32, 33))
    found = compiled(mesh, schema, deepest)
    assert found.is_exact
    name = "envoy.extensions.filters.http.rbac.v3.RBAC"
    config = {field: value for field, value in rbac(found).items() if field != "@type"}
    envoy_api.message(name).FromString(envoy_api.pack(name, config))  # which reads as deep as Envoy does

    (left,) = compiled(mesh, schema, deeper).left
    assert left.why == "a condition that is nested over 32 deep"


def test_a_value_has_a_bound_however_many_there_could_be(mesh: Mesh, schema: Schema) -> None:
    values = ", ".join(f'if context.request.path == "/{at}" then "{at}" else "x"' for at in range(11))
    text = f'@id("p") permit (principal, {HTTP}, resource) when {{ [{values}].contains("3") }};'
    (left,) = compiled(mesh, schema, text).left
    assert left.why == "what can be one of over 1,024 values"


def test_two_values_have_one_bound_together(mesh: Mesh, schema: Schema) -> None:
    def either(name: str) -> str:
        chosen = (f'if context.request.headers.hasTag("{name}{at}") then "{at}" else "x"' for at in range(6))
        return f"[{', '.join(chosen)}]"

    text = f'@id("p") permit (principal, {HTTP}, resource) when {{ {either("a")}.containsAll({either("b")}) }};'
    (left,) = compiled(mesh, schema, text).left
    assert left.why == "what can be one of over 1,024 values"


def test_an_expression_has_a_bound(mesh: Mesh, schema: Schema) -> None:
    text = f'@id("p") permit (principal, {HTTP}, resource) when {{ context.request.path == "/{"@" * 300}" }};'
    (obstacle,) = compiled(mesh, schema, text).obstacles
    assert obstacle.startswith('an expression of over 4,096 characters (path is "/@@@')


def test_at_a_gateway_behind_proxies_they_say_who_the_client_is(schema: Schema) -> None:
    trusting = world.WORKLOADS.replace("listen: 8080", "listen: 8080, gatewayTopology: {numTrustedProxies: 1}")
    text = f'@id("p") permit (principal, {HTTP}, resource) when {{{{ context.{{}}.isInRange(ip("10.0.0.0/8")) }}}};'
    behind = world.mesh_of(trusting, tokens="")
    assert compiled(behind, schema, text.format("source.ip"), "edge/gateway/8080").is_exact
    (left,) = compiled(behind, schema, text.format("client_ip"), "edge/gateway/8080").left
    assert left.why == "the client that proxies in front tell of"


@pytest.mark.parametrize("id_", ["_path", "_incomplete"])
def test_a_forbid_that_a_proxy_would_take_for_a_reason_of_its_own_is_not_compiled(
    mesh: Mesh, schema: Schema, id_: str
) -> None:
    text = f'@id("{id_}") {{}} (principal, {HTTP}, resource) when {{{{ context.request.path == "/a" }}}};'
    assert compiled(mesh, schema, text.format("permit")).is_exact  # a permit's name comes to no caller
    (left,) = compiled(mesh, schema, text.format("forbid")).left
    assert left.why == "an id that the proxy would take for a reason of its own"


TCP = """
workloads: {shop-v1: {service: shop, port: 9080, protocol: tcp}}
defaults: {namespace: default, serviceAccount: x}
"""
OUTSIDE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: default}
spec: {hosts: [api.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
"""
AUTHENTICATION = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: shop, namespace: default}}
spec: {{jwtRules: [{{issuer: https://a, jwks: '{Issuer("https://a").jwks}'}}]}}
"""


def built(texts: dict[str, str]) -> Mesh:
    declaration = declare(texts)
    return build(declaration, "cluster.local", assumed(declaration))


def test_connections_and_egress_are_asked_about(mesh: Mesh, schema: Schema) -> None:
    egress = compiled(mesh, schema, "", "shop-v1/egress")
    assert egress.obstacles == ("what leaves the mesh is decided by its Host",)
    either = built({"workloads.yaml": TCP.replace("tcp", "auto")})
    assert compiled(either, schema, "").obstacles == (
        "the first bytes of each connection tell what it brings (protocol `auto`): give the port a protocol",
    )


def test_connections_have_one_action_and_no_request(schema: Schema) -> None:
    tcp = built({"workloads.yaml": TCP})
    scopes = {"a": 'action == Action::"connect"', "b": HTTP, "c": "action"}
    found = compiled(
        tcp, schema, "\n".join(f'@id("{id_}") permit (principal, {one}, resource);' for id_, one in scopes.items())
    )
    assert (found.connects, [one.policy for one in found.permits], found.unused) == (
        True,
        ["a", "c"],
        (("b", "permit"),),
    )
    assert [done for done, _, _ in readable(found)] == ["503", "allow"]


def test_a_gateway_is_decided_as_a_service_where_nothing_leads_outside(mesh: Mesh, schema: Schema) -> None:
    text = '@id("p") permit (principal is Unauthenticated, action, resource == Service::"edge.default");'
    found = compiled(mesh, schema, text, "edge/gateway/8080")
    assert (found.is_exact, [words_of(one.when) for one in found.permits]) == (True, ["always"])

    entry = {"mesh/outside.yaml": OUTSIDE, "workloads.yaml": world.WORKLOADS}
    led_outside = compiled(built(entry), schema, text, "edge/gateway/8080")
    assert led_outside.obstacles == ("a gateway's routes may lead outside, which is decided by the Host",)


def test_workloads_of_other_trust_domains_keep_a_listener_central(mesh: Mesh, schema: Schema) -> None:
    federated = replace(mesh, federated=frozenset({"partner.org"}))
    assert compiled(federated, schema, "").obstacles == ("workloads of other trust domains are known there",)
    assert compiled(federated, schema, "", "shop-v1/inbound/plaintext").is_exact  # where nobody is verified


ROLES = 'context.user.getTag("roles")'
HAS = 'context.user.hasTag("roles")'
USERS = [
    ("context has user", "there is a user"),
    ("!(context has user)", "not (there is a user)"),
    ('context has user && context.user.subject == "al"', 'there is a user and user.subject is "al"'),
    ('context has user && context.user.issuer like "https*"', 'there is a user and user.issuer like "https*"'),
    (
        'context has user && context.user in Group::"people"',
        "there is a user and user is one of https://a/al, https://a/b",
    ),
    ('context has user && context.user == User::"https://a/x"', "there is a user and user is https://a/x"),
    ('context has user && context.user in Group::"shops"', "never"),
    (f"context has user && {HAS}", "there is a user and user has a claim roles"),
    (
        f'context has user && {HAS} && {ROLES}.contains("a")',
        'there is a user and user has a claim roles and claim roles has "a"',
    ),
    (
        f'context has user && {HAS} && ["a", "b"].containsAny({ROLES})',
        'there is a user and user has a claim roles and (claim roles has "a" or claim roles has "b")',
    ),
    (
        f'context has user && {HAS} && {ROLES}.containsAll(["a", "b"])',
        'there is a user and user has a claim roles and claim roles has "a" and claim roles has "b"',
    ),
    (f"context has user && {HAS} && {ROLES}.isEmpty()", "never"),
]


@pytest.fixture(scope="module")
def taking() -> Mesh:
    """Services that take tokens."""
    groups = world.GROUPS.replace("nobody: {}", 'people: {users: ["https://a/al", "https://a/b"]}')
    groups = "\n".join(line for line in groups.splitlines() if "bob" not in line)
    return built({"workloads.yaml": world.WORKLOADS, "groups.yaml": groups, "mesh/tokens.yaml": AUTHENTICATION})


@pytest.mark.parametrize(("condition", "words"), USERS)
def test_users_and_claims_are_asked_of_what_the_proxy_has_verified(
    taking: Mesh, schema: Schema, condition: str, words: str
) -> None:
    found = compiled(taking, schema, f'@id("p") permit (principal, {HTTP}, resource) when {{ {condition} }};')

    told = words_of(found.permits[0].when) if found.permits else "never"
    assert (found.left, found.obstacles, told) == ((), (), words)
    assert dict(found.issuers) == {"https://a": frozenset({"scope", "permission"})}
    assert found.claims == (("roles",) if "roles" in condition else ())


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        (f'{ROLES} == ["a"]', "a claim compared as a whole"),
        (f'["a"].containsAll({ROLES})', "a claim compared as a whole"),
        (f"{ROLES}.contains(context.request.path)", "a claim compared with what is not known beforehand"),
        ('context.user.hasTag("")', "a claim without a name"),
        ("context.user.subject == context.request.path", "two values of which neither is known beforehand"),
    ],
)
def test_what_no_metadata_can_be_asked_is_left(taking: Mesh, schema: Schema, condition: str, why: str) -> None:
    guarded = f"context has user && {HAS} && {condition}"
    found = compiled(taking, schema, f'@id("p") permit (principal, {HTTP}, resource) when {{ {guarded} }};')

    assert [one.why for one in found.left] == [why]


def test_a_claim_whose_name_is_computed_could_be_any(taking: Mesh, schema: Schema) -> None:
    condition = "context has user && context.user.hasTag(context.request.path)"
    found = compiled(taking, schema, f'@id("p") permit (principal, {HTTP}, resource) when {{ {condition} }};')

    assert found.obstacles == ("a policy reads a claim whose name it computes",)


def test_at_gateways_no_filter_says_whose_a_token_is(taking: Mesh, schema: Schema) -> None:
    assert compiled(taking, schema, "", "edge/gateway/8080").obstacles == (
        "tokens are taken there, and no filter says whose they are",
    )


def test_policies_that_are_tried_beside_keep_a_listener_central(mesh: Mesh, schema: Schema) -> None:
    tried = make_ruling(mesh, set_of([]), schema, set_of([]))
    found = Compiler(tried).compile(mesh.listeners[INBOUND])
    assert found.obstacles == ("policies are tried beside those in force",)


GOLDEN = f"""
@id("web-reads")
permit (principal == Workload::"{WEB}", action in Action::"read", resource == Service::"shop.default")
when {{ context.request.path like "/items/*" && context.request.segments == 2 }};
@id("same-app")
permit (principal is Workload, action == Action::"POST", resource is Service)
when {{ principal.hasTag("app") && resource.hasTag("app") && principal.getTag("app") == resource.getTag("app") }};
@id("office")
forbid (principal, {HTTP}, resource is Service)
when {{ context.request.path like "/admin*" }}
unless {{ context.client_ip.isInRange(ip("10.0.0.0/8")) }};
@id("canary")
permit (principal, {HTTP}, resource)
when {{ context.request.headers.hasTag("x-canary") && context.request.headers.getTag("x-canary") like "on*" }};
@id("overflow")
forbid (principal, action == Action::"DELETE", resource) when {{ 9223372036854775807 + 1 > 0 }};
"""


def test_a_filter_is_what_it_was(mesh: Mesh, schema: Schema, pytestconfig: pytest.Config) -> None:
    found = compiled(mesh, schema, GOLDEN)
    update = pytestconfig.getoption("--update-golden")
    check_json("local/filter.json", rbac(found), update=update)
    text = "\n".join(f"{done:5}  {policy:9}  {words}" for done, policy, words in readable(found))
    check_text("local/filter.txt", text + "\n", update=update)
    config = {name: value for name, value in rbac(found).items() if name != "@type"}
    envoy_api.build("envoy.extensions.filters.http.rbac.v3.RBAC", config)  # no field that Envoy does not know
    assert size(found) > 1000


def test_rows_tell_every_policy(mesh: Mesh, schema: Schema) -> None:
    text = (
        GOLDEN
        + '@id("now") permit (principal, action in Action::"http", resource) when { context.time == context.time };'
    )
    assert rows(compiled(mesh, schema, text)) == [
        Row("canary", "permit", "compiled"),
        Row("now", "permit", "not compiled", "`context.time` in `context.time == context.time` (shop.cedar:17)"),
        Row("office", "forbid", "compiled"),
        Row("overflow", "forbid", "compiled"),
        Row("same-app", "permit", "compiled"),
        Row("web-reads", "permit", "compiled"),
    ]


def test_what_is_compiled_alike_is_told_once(mesh: Mesh, schema: Schema) -> None:
    by_label = '@id("p") permit (principal, action, resource) when { context.destination.labels.hasTag("tier") };'
    for text, groups in (
        ("", [[INBOUND, "shop-v2/inbound"], ["shop-v1/inbound/plaintext", "shop-v2/inbound/plaintext"]]),
        (by_label, [[INBOUND], ["shop-v1/inbound/plaintext"], ["shop-v2/inbound"], ["shop-v2/inbound/plaintext"]]),
    ):
        compiler = Compiler(ruling_of(mesh, schema, text))
        found = alike([compiler.compile(one) for one in listeners_of(mesh, "shop.default")])
        assert [names for _, names in found] == groups


def test_only_what_a_change_touches_is_compiled_again(mesh: Mesh, schema: Schema) -> None:
    def texts(path: str) -> str:
        to = 'resource == Service::"{}.{}"'
        services = {"a": to.format("shop", "default"), "b": to.format("web", "default")}
        paths = {"a": "/a", "b": path}
        return "\n".join(
            f'@id("{id_}") permit (principal, {HTTP}, {service}) when {{ context.request.path == "{paths[id_]}" }};'
            for id_, service in services.items()
        )

    shop, web = (mesh.listeners[name] for name in (INBOUND, "web-v1/inbound"))
    before = Compiler(ruling_of(mesh, schema, texts("/b")))
    old = [before.compile(shop), before.compile(web)]
    after = Compiler(ruling_of(mesh, schema, texts("/c")), before)
    new = [after.compile(shop), after.compile(web)]
    assert new[0].permits is old[0].permits
    assert [words_of(one.permits[0].when) for one in (old[1], new[1])] == ['path is "/b"', 'path is "/c"']
    assert new[0].revision == new[1].revision != old[0].revision

    alike = Compiler(ruling_of(world.mesh_of(tokens=""), schema, texts("/b")), before)  # made anew, and says the same
    assert alike.compile(shop).permits is old[0].permits
    other = replace(world.mesh_of(tokens=""), groups={})
    elsewhere = Compiler(ruling_of(other, schema, texts("/b")), before)
    assert elsewhere.compile(shop).permits is not old[0].permits
