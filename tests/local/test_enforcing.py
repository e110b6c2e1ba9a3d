"""Who decides at a listener: what Enforcements want, where that is exact and its records may come later."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from policyd.authz.ruling import Ruling, make_ruling
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.local.enforcing import DISTRUSTED, Enforced, Terms, enforced, passed_over, problems
from policyd.mesh.build import build
from policyd.mesh.declaration import Declaration
from policyd.mesh.declare import declare
from policyd.mesh.placement import assumed
from policyd.spiffe import SpiffeId
from tests.fakes.issuer import Issuer

WORKLOADS = """\
workloads:
  shop-v1: {service: shop, port: 80}
  data-v1: {service: data, port: 5432, protocol: tcp}
"""
TOKENS = f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people}}
spec: {{selector: {{matchLabels: {{app: shop}}}}, jwtRules: [{{issuer: https://a, jwks: '{Issuer("https://a").jwks}'}}]}}
"""
OPEN = '@id("open") permit (principal, action in Action::"http", resource);\n'
CLOCK = """\
@id("night") forbid (principal, action in Action::"http", resource)
when { context.time < datetime("2026-01-01") };
"""
SHOP, DATA = "shop-v1/inbound", "data-v1/inbound"
OWNER = SpiffeId.parse("spiffe://cluster.local/ns/default/sa/shop")
NOT_ASYNC = "its records would come after the fact, and `audit.durability` is `written`"


def resource(spec: str) -> str:
    return f"apiVersion: policyd.io/v1\nkind: Enforcement\nmetadata: {{name: a}}\nspec: {{{spec}}}\n"


def asked(schema: Schema, spec: str, policies: str = OPEN) -> tuple[Ruling, Declaration]:
    declaration = declare({"workloads.yaml": WORKLOADS, "mesh/e.yaml": resource(spec)})
    mesh = build(declaration, "cluster.local", assumed(declaration))
    return make_ruling(mesh, load_policies({"p.cedar": policies}, schema), schema), declaration


ASYNC, WRITTEN = Terms("async"), Terms("written")


@pytest.mark.parametrize(
    ("spec", "policies", "terms", "local", "why"),
    [
        ("enforcement: central", OPEN, ASYNC, [], {}),
        ("enforcement: local, selector: {matchLabels: {app: shop}}", OPEN, ASYNC, [SHOP], {}),
        ("enforcement: local, selector: {matchLabels: {app: shop}}", OPEN, WRITTEN, [], {SHOP: NOT_ASYNC}),
        ("enforcement: local, selector: {matchLabels: {app: shop}}, durability: async", OPEN, WRITTEN, [SHOP], {}),
        ("enforcement: auto", OPEN, ASYNC, [DATA, SHOP], {}),
        ("enforcement: auto, selector: {matchLabels: {app: shop}}", OPEN, Terms("fsync"), [],
         {SHOP: NOT_ASYNC.replace("written", "fsync")}),
        ("enforcement: auto, selector: {matchLabels: {app: shop}}", OPEN, Terms("async", (), {OWNER}), [],
         {SHOP: DISTRUSTED}),
        ("enforcement: local, selector: {matchLabels: {app: shop}}", OPEN, Terms("async", (), {OWNER}), [SHOP], {}),
    ],
)  # fmt: skip
def test_who_decides(
    schema: Schema, spec: str, policies: str, terms: Terms, local: list[str], why: dict[str, str]
) -> None:
    ruling, _ = asked(schema, spec, policies)

    found = enforced(ruling, terms)

    assert (list(found.local), dict(found.why)) == (local, why)


def test_auto_is_central_where_a_policy_cannot_be_compiled_and_local_is_refused_with_its_place(schema: Schema) -> None:
    shop = "selector: {matchLabels: {app: shop}}"
    ruling, _ = asked(schema, f"enforcement: auto, {shop}", OPEN + CLOCK)
    auto = enforced(ruling, ASYNC)
    ruling, declaration = asked(schema, f"enforcement: local, {shop}", OPEN + CLOCK)
    [problem] = problems(enforced(ruling, ASYNC), declaration, ASYNC)

    assert auto.local == ()
    assert auto.switches[SHOP].rbac is None
    assert "`night`: " in auto.why[SHOP]
    assert "(p.cedar:3)" in auto.why[SHOP]
    assert str(problem).startswith(f"mesh/e.yaml:4: `{SHOP}` cannot be decided by its sidecar: `night`: ")
    assert "write `enforcement: auto`" in str(problem)


@pytest.mark.parametrize(
    ("spec", "namespace", "warned"),
    [
        ("enforcement: local", "istio-system", ["`edge`"]),
        ("enforcement: local", "default", ["`edge`"]),
        ("enforcement: local", "other", []),
        ("enforcement: auto", "istio-system", []),
        ("enforcement: local, selector: {matchLabels: {app: shop}}", "istio-system", []),
    ],
)
def test_gateways_that_a_local_for_all_passes_over_are_named_in_a_warning(
    spec: str, namespace: str, warned: list[str]
) -> None:
    text = resource(spec).replace("name: a", f"name: a, namespace: {namespace}")
    gateway = "gateways:\n  edge: {listen: 8080}\n"
    others = WORKLOADS + "  far-v1: {service: far, port: 80, namespace: other}\n" + gateway
    declaration = declare({"workloads.yaml": others, "mesh/e.yaml": text})

    found = list(passed_over(declaration, build(declaration, "cluster.local", assumed(declaration))))

    assert [re.findall("`edge`", str(one)) for one in found] == [warned] * len(found)
    assert len(found) == len(warned)
    assert all(str(one).startswith("mesh/e.yaml:4: policyd goes on deciding at `edge`: ") for one in found)


def test_local_that_could_not_be_on_record_in_time_says_how_to_accept_that(schema: Schema) -> None:
    ruling, declaration = asked(schema, "enforcement: local, selector: {matchLabels: {app: shop}}")

    [problem] = problems(enforced(ruling, WRITTEN), declaration, WRITTEN)

    assert str(problem).startswith(f"mesh/e.yaml:4: `{SHOP}` cannot be decided by its sidecar: {NOT_ASYNC}")
    assert "`durability: async`" in str(problem)


def test_where_no_enforcement_holds_any_more_it_is_central_by_the_routes_so_that_no_open_connection_keeps_the_old(
    schema: Schema,
) -> None:
    ruling, _ = asked(schema, "enforcement: auto, samplePercent: 2.5, selector: {matchLabels: {app: shop}}", OPEN)
    was = enforced(ruling, ASYNC)
    declaration = declare({"workloads.yaml": WORKLOADS})
    mesh = build(declaration, "cluster.local", assumed(declaration))
    gone = make_ruling(mesh, load_policies({"p.cedar": OPEN}, schema), schema)

    left = enforced(gone, ASYNC, was)

    assert was.local == (SHOP,)
    assert (left.switches, left.why, left.by) == ({SHOP: replace(was.switches[SHOP], rbac=None, revision="")}, {}, {})
    assert enforced(gone, ASYNC, left).switches == left.switches  # and so for as long as policyd runs
    assert enforced(gone, ASYNC) == Enforced()


def test_what_is_local_is_so_under_the_revision_with_what_is_read_on_record(schema: Schema) -> None:
    reading = OPEN.replace(
        ";", '\nwhen { context.request.headers.hasTag("x-a") && context.request.headers.getTag("x-a") == "1" };'
    )
    ruling, _ = asked(schema, "enforcement: auto, samplePercent: 2.5", reading)

    switch = enforced(ruling, Terms("async", ("x-listed", "cookie", "x-policyd-peer"))).switches[SHOP]

    assert (switch.revision, switch.sample_percent) == (ruling.revision, 2.5)
    # what policyd is not sent is on no record of a sidecar's either
    assert switch.headers == ("x-a", "x-listed")


@pytest.mark.parametrize("name", ["a\\nb", "a\\u{1f}b", "a b", "a=b", "é", "", ":path", "host"])
def test_what_no_request_brings_as_a_header_is_on_no_record(schema: Schema, name: str) -> None:
    """A line would end where such a name has its end; what Envoy has by the others is another part of the request."""
    elsewhere = '@id("data") forbid (principal, action in Action::"http", resource == Service::"data.default")\n'
    reading = f'{OPEN}{elsewhere}when {{ context.request.headers.hasTag("{name}") }};'
    ruling, _ = asked(schema, "enforcement: auto", reading)

    assert len(ruling.headers_read) == 1
    assert enforced(ruling, ASYNC).switches[SHOP].headers == ()


def test_where_tokens_are_taken_the_sidecar_decides_once_it_is_known_whose_they_are(schema: Schema) -> None:
    reading = OPEN.replace(";", '\nwhen { context has user && context.user.hasTag("roles") };')
    declaration = declare(
        {"workloads.yaml": WORKLOADS, "mesh/e.yaml": resource("enforcement: auto"), "mesh/t.yaml": TOKENS}
    )
    mesh = build(declaration, "cluster.local", assumed(declaration))
    ruling = make_ruling(mesh, load_policies({"p.cedar": reading}, schema), schema)

    switch = enforced(ruling, replace(ASYNC, claims=("email",))).switches[SHOP]
    central = enforced(ruling, WRITTEN).switches[SHOP]

    assert switch.rbac is not None
    asked = switch.asked["envoy.filters.http.lua"]["filter_context"]["asked"]
    assert (asked["claims"], list(asked["issuers"])) == ({"email": True, "roles": True}, ["https://a"])
    assert [one["filter"] for one in switch.told] == ["policyd.user"]
    assert (central.rbac, central.asked, central.told, central.behind) == (None, {}, (), switch.behind)


def test_where_tunnels_are_for_names_what_a_gateway_says_is_on_record_and_policyds_where_it_may_be_no_name(
    schema: Schema,
) -> None:
    by_name = '@id("n") permit (principal, action == Action::"connect", resource) when { context has sni };'
    declaration = declare(
        {"workloads.yaml": WORKLOADS.replace("tcp", "tls"), "mesh/e.yaml": resource("enforcement: auto")}
    )
    mesh = build(declaration, "cluster.local", assumed(declaration))
    ruling = make_ruling(mesh, load_policies({"p.cedar": by_name}, schema), schema)

    data, shop = (enforced(ruling, ASYNC).switches[name] for name in (DATA, SHOP))

    assert data.rbac is not None
    assert ([one["name"] for one in data.only], "x-policyd-sni" in data.headers) == (["x-policyd-sni"], True)
    assert (shop.only, "x-policyd-sni" in shop.headers) == ((), False)


def test_between_central_and_local_only_who_decides_is_another(schema: Schema) -> None:
    def switch_of(spec: str, terms: Terms = ASYNC) -> object:
        found = enforced(asked(schema, spec)[0], terms).switches[SHOP]
        return (found.front, found.mappers, found.headers, found.sample_percent)

    assert switch_of("enforcement: auto") == switch_of("enforcement: local, selector: {matchLabels: {app: shop}}")
    assert switch_of("enforcement: auto") == switch_of("enforcement: central")
    assert switch_of("enforcement: auto") == switch_of("enforcement: auto", WRITTEN)


def test_nothing_is_compiled_again_that_another_folder_leaves_as_it_was(schema: Schema) -> None:
    first, declaration = asked(schema, "enforcement: auto")
    before = enforced(first, ASYNC)
    again = build(declaration, "cluster.local", assumed(declaration))  # another Mesh, which says the same
    again = replace(again, instances=first.mesh.instances)  # placed alike
    second = make_ruling(again, first.policy_set, schema)

    after = enforced(second, ASYNC, before)

    assert again is not first.mesh
    assert after == Enforced(before.switches, before.why, before.by)
    assert after.switches[SHOP].rbac is before.switches[SHOP].rbac
    assert after.compiled[SHOP].permits is before.compiled[SHOP].permits
