"""What the author's checks find, row by row; and that what is called useless is, by Cedar's own answers."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.authz.ruling import Ruling
from policyd.cedar.schema import Schema
from policyd.errors import Problem
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.placement import assumed
from policyd.policy.finding_model import RULES, of_problems
from policyd.policy.request_form import parse_form
from policyd.policy.resolving import resolve_form
from policyd.policy.whatif import decide_by
from policyd.sources.files import Folder
from tests.authz.checks import ruling_of
from tests.policy.authors import PAGE, findings_of, policy

ANYWHERE = 'principal is Workload, action in Action::"http", resource'


def test_the_sample_is_clean_but_for_groups_kept_for_later(mesh: Mesh, schema: Schema, folder: Folder) -> None:
    found = findings_of(mesh, schema, {**folder.below("policies"), "groups.yaml": folder.text("groups.yaml") or ""})
    # the operators' policies, which name the third one, are not among these files
    assert [(one.code, one.message) for one in found] == [
        ("PD0401", f"no policy names the group `{name}`") for name in ("editors", "google", "sre")
    ]


@pytest.mark.parametrize(
    ("scope", "code", "marked", "why"),
    [
        (
            'principal is Workload, action, resource == Service::"detials.default"',
            "PD0101", 'resource == Service::"detials.default"',
            "there is no service `detials.default`; did you mean `details.default`?",
        ),
        (
            'principal == Workload::"spiffe://cluster.local/ns/default/sa/nobody", action, resource',
            "PD0102", 'principal == Workload::"spiffe://cluster.local/ns/default/sa/nobody"',
            "there is no workload `spiffe://cluster.local/ns/default/sa/nobody`; declare it, or remove the policy",
        ),
        (
            'principal == Workload::"nobody", action, resource',
            "PD0102", 'principal == Workload::"nobody"',
            "`nobody` is no SPIFFE ID",
        ),
        (
            'principal in Group::"rating-readers", action, resource',
            "PD0103", 'principal in Group::"rating-readers"',
            "there is no group `rating-readers`; did you mean `ratings-readers`?",
        ),
        (
            'principal is Workload in Namespace::"defualt", action, resource',
            "PD0104", 'principal is Workload in Namespace::"defualt"',
            "the namespace `defualt` has nothing of that kind in it; did you mean `default`?",
        ),
        (
            'principal is Workload, action, resource is Service in TrustDomain::"partner.org"',
            "PD0104", 'resource is Service in TrustDomain::"partner.org"',
            '`TrustDomain::"partner.org"` has nothing of that kind in it; this mesh is `cluster.local`',
        ),
        (
            'principal in Group::"editors", action, resource',
            "PD0105", 'principal in Group::"editors"',
            "the group `editors` has no workloads; add a member in groups.yaml, or remove the policy",
        ),
        (
            'principal is Workload, action, resource in Group::"ratings-readers"',
            "PD0105", 'resource in Group::"ratings-readers"',
            "the group `ratings-readers` has no hosts or services; add a member in groups.yaml, or remove the policy",
        ),
        ('principal in Namespace::"partner.org/shop", action, resource', "", "", ""),
        ('principal in TrustDomain::"partner.org", action, resource', "", "", ""),
        ('principal in Group::"ratings-readers", action, resource in Namespace::"default"', "", "", ""),
        ('principal is Workload, action, resource in Group::"google"', "", "", ""),
    ],
)  # fmt: skip
def test_a_scope_that_nothing_is_in(mesh: Mesh, schema: Schema, scope: str, code: str, marked: str, why: str) -> None:
    text = policy(scope=scope)
    found = findings_of(mesh, schema, {"p.cedar": text})
    told = [(one.code, text.split("\n")[one.line - 1][one.column - 1 :][: one.width]) for one in found]
    assert told == ([(code, marked)] if code else [])
    if found:
        assert str(found[0].problem()).startswith(f"p.cedar:2: `p` never matches: {why}")


SCOPED = "this is false for every request that its scope lets through"
NEVER = "this exception of `p` never applies"
AFTER = "this is false whenever what stands before it lets a request through"


@pytest.mark.parametrize(
    ("condition", "scope", "code", "marked", "why"),
    [
        ('when { "a" == "b" }', ANYWHERE, "PD0201", '"a" == "b"', SCOPED),
        ("when { principal is Unauthenticated }", ANYWHERE, "PD0201", "principal is Unauthenticated", SCOPED),
        (
            'when { action == Action::"POST" }', 'principal is Workload, action in Action::"read", resource',
            "PD0201", 'action == Action::"POST"', SCOPED,
        ),
        (
            'when { context.request.method == "get" }', 'principal is Workload, action == Action::"GET", resource',
            "PD0201", 'context.request.method == "get"', SCOPED,
        ),
        (
            'when { resource.name == "x" }', 'principal is Workload, action in Action::"http", resource is Service',
            "PD0201", 'resource.name == "x"', SCOPED,
        ),
        (
            'when { principal in Group::"editors" }', ANYWHERE,
            "PD0201", 'principal in Group::"editors"', SCOPED,
        ),
        (
            "unless { principal is Workload }", ANYWHERE, "PD0201", "principal is Workload",
            "this is true for every request that its scope lets through",
        ),
        (
            'when { context.request.path == "/a" && context.request.path == "/b" }', ANYWHERE,
            "PD0202", 'context.request.path == "/b"', AFTER,
        ),
        (
            'when { context.request.path == "/a/b" && context.request.path like "/a/*/c" }', ANYWHERE,
            "PD0202", 'context.request.path like "/a/*/c"', AFTER,
        ),
        (
            'when { ["/a", "/b"].contains(context.request.path) } unless { context.request.path like "/*" }', ANYWHERE,
            "PD0202", 'context.request.path like "/*"', AFTER.replace("false", "true"),
        ),
        (
            "when { context.request.segments == 2 && context.request.segments > 3 }", ANYWHERE,
            "PD0202", "context.request.segments > 3", AFTER,
        ),
        (
            'when { context has user && context.user.issuer == "x" }', ANYWHERE,
            "PD0203", "context has user", "no request carries `context.user`, without a RequestAuthentication",
        ),
        (
            'when { context.request.headers.hasTag(":path") }', ANYWHERE,
            "PD0203", 'context.request.headers.hasTag(":path")', "no request carries a header `:path`",
        ),
        (
            'when { principal.hasTag("team") && principal.getTag("team") == "a" }', ANYWHERE,
            "PD0203", 'principal.hasTag("team")', "no caller of the mesh has the label `team`",
        ),
        (
            'when { resource.hasTag("version") }', 'principal, action, resource is Service',
            "PD0203", 'resource.hasTag("version")',
            "no service of the mesh has the label `version`, but `context.destination.labels` may have it",
        ),
        (
            'when { context.request.path == "admin" }', ANYWHERE,
            "PD0203", 'context.request.path == "admin"', "every path starts with `/`",
        ),
        (
            'when { context.request.path like "orders/*" }', ANYWHERE,
            "PD0203", 'context.request.path like "orders/*"', "every path starts with `/`",
        ),
        (
            'when { context.request.path like "/orders?id=*" }', ANYWHERE,
            "PD0203", 'context.request.path like "/orders?id=*"', "no path has a `?`, the query is no part of it",
        ),
        (
            'when { context.request.path like "*/a b" }', ANYWHERE,
            "PD0203", 'context.request.path like "*/a b"', "no path has a ` ` unless it is escaped",
        ),
        (
            'when { context.request.path like "/orders/[0-9]+" }', ANYWHERE,
            "PD0203", 'context.request.path like "/orders/[0-9]+"',
            "no path has a `[` unless it is escaped; of patterns there is `*` alone",
        ),
        (
            'when { context.request.path like "//*" }', ANYWHERE,
            "PD0203", 'context.request.path like "//*"', "no path has `//`, proxies merge slashes",
        ),
        (
            'when { context.request.path like "/a/../*" }', ANYWHERE,
            "PD0203", 'context.request.path like "/a/../*"', "no path has a dot segment, proxies resolve them",
        ),
        (
            'when { context.request.path like "*/.." }', ANYWHERE,
            "PD0203", 'context.request.path like "*/.."', "no path has a dot segment, proxies resolve them",
        ),
        (
            'when { context.request.path == "/%61dmin" }', ANYWHERE,
            "PD0203", 'context.request.path == "/%61dmin"', "`%61` is decoded in paths, to `a`",
        ),
        (
            'when { context.request.path == "/a%2Fb" }', ANYWHERE,
            "PD0203", 'context.request.path == "/a%2Fb"', "no path has the escape `%2F`, it is refused",
        ),
        (
            'when { context.request.path == "/caf%c3%A9" }', ANYWHERE,
            "PD0203", 'context.request.path == "/caf%c3%A9"', "escapes in paths are in upper case, `%C3`",
        ),
        (
            'when { "Reviews" == context.request.host }', ANYWHERE,
            "PD0203", '"Reviews" == context.request.host', "hosts are in lower case",
        ),
        (
            'when { context.request.host like "*.Example.com" }', ANYWHERE,
            "PD0203", 'context.request.host like "*.Example.com"', "hosts are in lower case",
        ),
        (
            'when { context.client_ip == ip("10.0.0.0/8") }', ANYWHERE,
            "PD0203", 'context.client_ip == ip("10.0.0.0/8")',
            'no address is a range, ask `isInRange(ip("10.0.0.0/8"))`',
        ),
    ],
)  # fmt: skip
def test_a_condition_that_never_holds(
    mesh: Mesh, schema: Schema, condition: str, scope: str, code: str, marked: str, why: str
) -> None:
    text = policy(condition, scope)
    (found,) = findings_of(mesh, schema, {"p.cedar": text})
    shown = text.split("\n")[found.line - 1][found.column - 1 :][: found.width]
    assert (found.code, shown, found.message) == (code, marked, f"`p` never matches: {why}")


@pytest.mark.parametrize(
    "condition",
    [
        'when { context.request.path == "/a" || context.request.path == "/b" }',
        'when { context.request.path like "/a*" && context.request.path like "*b" }',
        'when { context.request.path != "/a" && context.request.path != "/b" }',
        'when { context.request.headers.hasTag("x-a") }',
        'when { principal in Group::"ratings-readers" }',
        'when { if action == Action::"GET" then context.request.path == "/a" else true }',
        "when { context.request.segments < 5 }",
        'unless { context.request.path == "/a" }',
        'when { context.request.path like "*.php" }',
        'when { context.request.path like "*/.hidden*" }',
        'when { context.request.path == "/a;b" || context.request.path == "/caf%C3%A9/*" }',
        'when { context.client_ip == ip("10.0.0.1/32") || context.client_ip == ip("10.0.0.2") }',
    ],
)
def test_a_condition_that_may_hold_is_left_alone(mesh: Mesh, schema: Schema, condition: str) -> None:
    assert findings_of(mesh, schema, {"p.cedar": policy(condition)}) == []


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("when { principal is Workload }", "this condition of `p` always holds"),
        ("when { true }", "this condition of `p` always holds"),
        (
            "unless { principal is Unauthenticated }",
            "this exception of `p` never applies: this is false for every request",
        ),
        (
            "unless { context has user }",
            "this exception of `p` never applies: no request carries `context.user`, without a RequestAuthentication",
        ),
    ],
)
def test_a_condition_that_says_nothing_is_noted(mesh: Mesh, schema: Schema, condition: str, message: str) -> None:
    (found,) = findings_of(mesh, schema, {"p.cedar": policy(condition)})
    assert (found.code, found.severity, found.message) == ("PD0204", "note", message)


FORBIDS = '@id("f") forbid ({});\n'
PERMITS = '@id("p") permit ({}) {};\n'


@pytest.mark.parametrize(
    ("forbid", "permit", "shadowed"),
    [
        ("principal, action, resource", ANYWHERE, True),
        ('principal, action, resource in Namespace::"default"',
         'principal is Workload, action == Action::"GET", resource == Service::"reviews.default"', True),
        ('principal in TrustDomain::"cluster.local", action, resource',
         'principal in Namespace::"default", action, resource', True),
        ('principal in Group::"ratings-readers", action in Action::"read", resource',
         f'principal == {PAGE}, action == Action::"GET", resource', True),
        ('principal in Group::"ratings-readers", action in Action::"read", resource',
         f'principal == {PAGE}, action == Action::"POST", resource', False),
        ("principal is Workload, action, resource", 'principal in Group::"ratings-readers", action, resource', True),
        (f"principal == {PAGE}, action, resource", 'principal in Group::"ratings-readers", action, resource', False),
        ('principal, action, resource in Namespace::"other"',
         'principal is Workload, action, resource == Service::"reviews.default"', False),
    ],
)  # fmt: skip
def test_a_permit_under_a_forbid(mesh: Mesh, schema: Schema, forbid: str, permit: str, shadowed: bool) -> None:
    files = {"a.cedar": FORBIDS.format(forbid), "p.cedar": PERMITS.format(permit, "")}
    found = [one for one in findings_of(mesh, schema, files) if one.code == "PD0301"]
    assert [(one.file, one.message) for one in found] == (
        [("p.cedar", "`p` permits nothing: `f` (a.cedar:1) forbids all of it")] if shadowed else []
    )


def test_a_forbid_with_a_condition_shadows_nothing(mesh: Mesh, schema: Schema) -> None:
    forbid = '@id("f") forbid (principal, action in Action::"http", resource) when { context.request.path == "/" };\n'
    assert findings_of(mesh, schema, {"a.cedar": forbid, "p.cedar": PERMITS.format(ANYWHERE, "")}) == []


@pytest.mark.parametrize(
    ("scope", "codes"),
    [
        ("principal, action, resource", ["PD0302"]),
        ('principal, action, resource == Service::"ingress.default"', ["PD0304"]),
        ("principal is Workload, action, resource", []),
    ],
)
def test_a_permit_for_everyone(mesh: Mesh, schema: Schema, scope: str, codes: list[str]) -> None:
    assert [one.code for one in findings_of(mesh, schema, {"p.cedar": policy(scope=scope)})] == codes


def test_of_two_equal_policies_one_adds_nothing(mesh: Mesh, schema: Schema) -> None:
    text = "".join(f'@id("{name}") permit ({ANYWHERE});\n' for name in "ab")
    (found,) = findings_of(mesh, schema, {"p.cedar": text})
    assert (found.code, found.line, found.message) == (
        "PD0303", 2, "`b` adds nothing: `a` (p.cedar:1) permits all of it",
    )  # fmt: skip


def test_a_group_is_used_by_way_of_another_and_by_operators(mesh: Mesh, schema: Schema) -> None:
    groups = "groups:\n  ratings-readers: {}\n  editors: {}\n  google: {}\n  sre: {}\n"
    files = {
        "groups.yaml": groups,
        "operators.cedar": '@id("o") permit (principal in Group::"sre", action, resource); // Group::"google"',
        "policies/p.cedar": policy(scope='principal in Group::"ratings-readers", action, resource'),
    }
    mine = {name: text for name, text in files.items() if name != "operators.cedar"}
    assert [one.line for one in findings_of(mesh, schema, mine) if one.code == "PD0401"] == [3, 4, 5]


def test_every_problem_of_loading_has_a_code() -> None:
    problems = [Problem("policy_syntax", "m", "f", 1, 2, "r"), Problem("field", "m", "g", 3)]
    assert [(one.code, one.file, one.line, one.severity) for one in of_problems(problems)] == [
        ("PD0002", "f", 1, "error"),
        ("PD0001", "g", 3, "error"),
    ]
    assert all(code == rule.code and rule.meaning for code, rule in RULES.items())


PRINCIPALS = [
    "principal", "principal is Workload", "principal is Unauthenticated", f"principal == {PAGE}",
    'principal in Group::"ratings-readers"', 'principal in Group::"editors"', 'principal in Namespace::"default"',
    'principal is Workload in Group::"ratings-readers"', 'principal == Unauthenticated::"anonymous"',
    'principal in TrustDomain::"cluster.local"', 'principal in Namespace::"other"',
]  # fmt: skip
ACTIONS = ['action in Action::"http"', 'action == Action::"GET"', 'action in [Action::"read", Action::"POST"]']
RESOURCES = [
    "resource", "resource is Service", 'resource == Service::"reviews.default"', 'resource in Namespace::"default"',
    'resource == Service::"ratings.default"', 'resource in TrustDomain::"cluster.local"', 'resource in Group::"google"',
]  # fmt: skip
ATOMS = [
    "true", "false", 'context.request.path == "/a"', 'context.request.path == "/b"', 'context.request.path like "/a*"',
    'context.request.path like "*"', 'context.request.method == "GET"', 'action == Action::"GET"',
    'action in Action::"write"', "principal is Workload", f"principal == {PAGE}", 'principal in Group::"editors"',
    'principal in Group::"ratings-readers"', 'resource == Service::"reviews.default"', "context has user",
    'context.request.headers.hasTag("x-a")', 'context.request.headers.hasTag("host")', 'principal.hasTag("team")',
    "context.request.segments == 1", "context.request.segments > 1", '["/a", "/c"].contains(context.request.path)',
    'principal is Workload in Namespace::"other"', 'context.request.path != "/a"',
]  # fmt: skip

conditions = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("(if {} then {} else {})".format, inner, inner, inner),
    ),
    max_leaves=5,
)
clauses = st.lists(st.builds("{} {{ {} }}".format, st.sampled_from(["when", "unless"]), conditions), max_size=2)
policies = st.builds(
    "{} ({}, {}, {}) {}".format,
    st.sampled_from(["permit", "forbid"]),
    st.sampled_from(PRINCIPALS),
    st.sampled_from(ACTIONS),
    st.sampled_from(RESOURCES),
    clauses.map(" ".join),
)
FORMS = [
    " ".join(parts)
    for parts in itertools.product(
        ("productpage", "ingress", "anonymous"),
        ("GET", "POST", "BREW"),
        [f"http://{service}/{path}" for service in ("reviews", "ratings", "ingress") for path in ("a", "b", "a/b")],
    )
]


@settings(max_examples=60, deadline=None)
@given(st.lists(policies, min_size=1, max_size=4))
def test_what_is_called_without_effect_has_none(mesh: Mesh, schema: Schema, ruling: Ruling, texts: list[str]) -> None:
    files = {"p.cedar": "".join(f'@id("p{at}") {text};\n' for at, text in enumerate(texts))}
    useless = {one.policy: one.code for one in findings_of(mesh, schema, files) if one.code in EFFECTLESS}
    whole = ruling_of(mesh, schema, files)
    others = [one for one in whole.policy_set.policies if one.id not in useless]
    now = datetime(2026, 11, 23, tzinfo=UTC)
    for form in FORMS if useless else ():
        request = whole.request(resolve_form(parse_form(form), mesh, now, {"x-a": "1"}))
        decision = whole.decide(request)
        never = {name for name, code in useless.items() if code < "PD0300"}
        assert not never & set(decision.reasons), form
        assert decide_by(others, request, schema).allowed == decision.allowed, form


EFFECTLESS = frozenset(code for code in RULES if "PD0101" <= code <= "PD0203") | {"PD0301", "PD0303"}


CANARY = """\
apiVersion: v1
kind: Service
metadata: {name: canary}
spec: {selector: {app: reviews}, ports: [{port: 9080, name: http}]}
"""


def test_a_service_that_shares_a_port_is_decided_as_the_other(folder: Folder, schema: Schema) -> None:
    declaration = declare({**folder.texts, "mesh/canary.yaml": CANARY})
    mesh = build(declaration, "cluster.local", assumed(declaration))
    text = policy(scope='principal is Workload, action, resource == Service::"canary.default"')

    [found] = findings_of(mesh, schema, {"p.cedar": text})
    assert (found.code, str(found.problem())) == (
        "PD0106",
        "p.cedar:2: `p` never matches: requests to `canary.default` are decided as requests to `reviews.default`, "
        "with which it shares a port; write the policy for `reviews.default`",
    )
