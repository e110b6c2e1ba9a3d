"""Who may call applications without a sidecar: what is compiled to what, and what is refused with its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policyd.authz.ruling import Ruling, make_ruling
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.local.enforcing import Terms, enforced
from policyd.local.envoy import INCOMPLETE
from policyd.local.guarding import NO_CALL, Guarded, guarded, problems
from policyd.mesh.build import build
from policyd.mesh.declaration import Declaration
from policyd.mesh.declare import declare
from policyd.mesh.placement import assumed
from tests.golden import check_json

WORKLOADS = """\
workloads:
  greeter-v1: {service: greeter, port: 50051, protocol: grpc, proxyless: true}
  web-v1: {service: web, port: 80}
"""
WEB = "spiffe://cluster.local/ns/default/sa/web"
SCOPE = 'principal is Workload, action == Action::"POST", resource == Service::"greeter.default"'


def ruling_of(schema: Schema, text: str, shadow: str = "", federated: bool = False) -> tuple[Ruling, Declaration]:
    declaration = declare({"workloads.yaml": WORKLOADS})
    partners = frozenset({"partner.org"} if federated else ())
    mesh = build(declaration, "cluster.local", assumed(declaration), federated=partners)
    tried = load_policies({"shadow.cedar": shadow}, schema) if shadow else None
    return make_ruling(mesh, load_policies({"it.cedar": text}, schema), schema, tried), declaration


def permit(condition: str) -> str:
    return f'@id("it")\npermit ({SCOPE})\nwhen {{ {condition} }};\n'


def allowed_by(schema: Schema, condition: str) -> Any:
    """What of a caller and its call is asked."""
    ruling, _ = ruling_of(schema, permit(condition))
    [_, allowed] = guarded(ruling).guards["greeter-v1/inbound"].filters
    return allowed["typed_config"]["rules"]["policies"]["it"]["principals"][0]["and_ids"]["ids"][-1]


def header(name: str, match: dict[str, Any]) -> dict[str, Any]:
    return {"header": {"name": name, "string_match": match}}


PRESENT = {"or_ids": {"ids": [{"header": {"name": "x-a", "present_match": True}}, header("x-a", {"exact": ""})]}}
TEXT = r"[\x20-\x7e]*"


@pytest.mark.parametrize(
    ("condition", "principal"),
    [
        (
            f'principal == Workload::"{WEB}"',
            {"authenticated": {"principal_name": {"exact": WEB}}},
        ),
        (
            'principal in Namespace::"default"',
            {
                "authenticated": {
                    "principal_name": {"safe_regex": {"regex": r"spiffe\x3a//cluster\x2elocal/ns/default/sa/[^/]+"}}
                }
            },
        ),
        ('context.request.headers.hasTag("x-a")', PRESENT),
        ('!context.request.headers.hasTag("x-a")', {"not_id": PRESENT}),
        (
            'context.request.headers.hasTag("x-a") && context.request.headers.getTag("x-a") like "b*"',
            header("x-a", {"prefix": "b"}),
        ),
        (
            'context.request.headers.hasTag("x-a") && context.request.headers.getTag("x-a") like "a*b"',
            header("x-a", {"safe_regex": {"regex": f"a{TEXT}b"}}),
        ),
        (
            'context.source.ip.isInRange(ip("10.0.0.0/8"))',
            {"direct_remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}},
        ),
    ],
)
def test_a_condition_is_asked_of_the_caller_or_of_its_call(
    schema: Schema, condition: str, principal: dict[str, Any]
) -> None:
    assert allowed_by(schema, condition) == principal


def test_refusals_stand_in_front_and_what_nobody_allows_is_denied(
    schema: Schema, request: pytest.FixtureRequest
) -> None:
    forbid = f'@id("not-secret")\nforbid ({SCOPE}) when {{ context.request.path == "/a.B/Secret" }};\n'
    ruling, _ = ruling_of(schema, permit('context.request.path like "/a.B/*"') + forbid)
    denied, allowed = guarded(ruling).guards["greeter-v1/inbound"].filters

    assert list(denied["typed_config"]["rules"]["policies"]) == [INCOMPLETE, NO_CALL, "not-secret"]
    assert list(allowed["typed_config"]["rules"]["policies"]) == ["it"]
    check_json("local/guard.json", [denied, allowed], update=request.config.getoption("--update-golden"))


def test_a_header_that_is_no_text_is_no_call_where_a_pattern_looks_at_it(schema: Schema) -> None:
    looked = 'context.request.headers.hasTag("x-a") && context.request.headers.getTag("x-a") like "a*b"'
    ruling, _ = ruling_of(schema, permit(looked))
    denied, _ = guarded(ruling).guards["greeter-v1/inbound"].filters
    [said] = denied["typed_config"]["rules"]["policies"][NO_CALL]["principals"]

    assert said["or_ids"]["ids"][1] == {
        "and_ids": {"ids": [PRESENT, {"not_id": header("x-a", {"safe_regex": {"regex": TEXT}})}]}
    }


def test_without_a_policy_nobody_is_allowed(schema: Schema) -> None:
    ruling, _ = ruling_of(schema, "")
    _, allowed = guarded(ruling).guards["greeter-v1/inbound"].filters

    assert allowed["typed_config"]["rules"] == {"action": "ALLOW"}


def refused(schema: Schema, text: str) -> list[str]:
    ruling, declaration = ruling_of(schema, text)
    found = guarded(ruling)
    assert not found.guards
    return [str(problem) for problem in problems(found, declaration)]


REMEDY = "change the policy, or give the workload a sidecar"


@pytest.mark.parametrize(
    ("condition", "line", "why"),
    [
        (
            'context.time < datetime("2030-01-01")',
            3,
            '`context.time` (`context.time < datetime("2030-01-01")`)',
        ),
        ("context.source.port == 9", 1, "the port that a call comes from"),
        *(
            (
                f'context.request.headers.hasTag("{name}")',
                1,
                f"the header `{name}`, which it has otherwise than a sidecar",
            )
            for name in ("te", "content-type", "grpc-timeout", "x-forwarded-for", "x-request-id", "trace-bin")
        ),
    ],
)
def test_a_policy_that_grpc_cannot_decide_by_refuses_the_workload_where_it_is_written(
    schema: Schema, condition: str, line: int, why: str
) -> None:
    problem = f"it.cedar:{line}: `greeter-v1` cannot be proxyless: gRPC does not decide by {why}; {REMEDY}"

    assert refused(schema, permit(condition)) == [problem]


def test_a_policy_on_other_services_refuses_nobody(schema: Schema) -> None:
    text = permit('context.time < datetime("2030-01-01")').replace("greeter.default", "web.default")
    ruling, declaration = ruling_of(schema, text)

    assert list(problems(guarded(ruling), declaration)) == []


def test_lists_of_revoked_certificates_refuse_it_where_it_is_declared(schema: Schema) -> None:
    ruling, declaration = ruling_of(schema, "")
    found = guarded(replace(ruling, mesh=replace(ruling.mesh, looks_at_serials=True)))

    assert [str(one) for one in problems(found, declaration)] == [
        "workloads.yaml:2: `greeter-v1` cannot be proxyless: gRPC looks at no list of revoked certificates "
        "(`ca.revoke_serials`); change that, or give it a sidecar"
    ]


def test_policies_that_are_tried_and_other_trust_domains_are_no_reason(schema: Schema) -> None:
    """It decides by those in force, and has the roots of its own trust domain alone."""
    text = permit('context.request.path == "/a/b"')
    alone, _ = ruling_of(schema, text)
    tried, declaration = ruling_of(
        schema, text, shadow='@id("s") permit (principal, action, resource);', federated=True
    )

    assert list(problems(guarded(tried), declaration)) == []
    assert guarded(tried).guards == guarded(alone).guards


def test_what_was_compiled_before_is_taken_over(schema: Schema) -> None:
    text = permit('context.request.path == "/a/b"')
    ruling, _ = ruling_of(schema, text)
    before = guarded(ruling)
    after = guarded(ruling, before)

    assert after.guards["greeter-v1/inbound"] is before.guards["greeter-v1/inbound"]
    assert guarded(ruling_of(schema, text.replace("/a/b", "/a/c"))[0], before).guards != before.guards


def test_a_mesh_of_sidecars_has_no_guards(schema: Schema) -> None:
    declaration = declare({"workloads.yaml": WORKLOADS.replace(", proxyless: true", "")})
    mesh = build(declaration, "cluster.local", assumed(declaration))

    assert guarded(make_ruling(mesh, load_policies({}, schema), schema)) == Guarded()


def test_an_enforcement_is_for_sidecars_and_says_nothing_of_it(schema: Schema) -> None:
    text = """\
apiVersion: policyd.io/v1
kind: Enforcement
metadata: {name: it}
spec: {enforcement: auto, durability: async}
"""
    declaration = declare({"workloads.yaml": WORKLOADS, "mesh/it.yaml": text})
    mesh = build(declaration, "cluster.local", assumed(declaration))
    found = enforced(make_ruling(mesh, load_policies({}, schema), schema), Terms("written"))

    assert sorted(found.switches) == ["web-v1/inbound"]
