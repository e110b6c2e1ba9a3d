"""The engine's answers, above all those that must not be silent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policyd.cedar.engine import Engine
from policyd.cedar.model import ANONYMOUS, Decision, EvaluationError, Uid
from policyd.cedar.policies import PolicySet, load_policies
from policyd.cedar.schema import Schema
from policyd.errors import DecisionError
from tests.cedar.requests import PAGE, http_request

OVERFLOW = "context.request.segments * 9223372036854775807 > 0"  # valid, and fails for two segments or more


def engine_of(text: str, schema: Schema) -> Engine:
    return Engine(load_policies({"test.cedar": text}, schema), schema)


@pytest.mark.parametrize(
    ("request_", "decision"),
    [
        (http_request(), Decision(True, ("reviews-from-productpage",))),
        (http_request(method="DELETE"), Decision(False)),
        (http_request(path="/elsewhere"), Decision(False)),
        (http_request(ANONYMOUS), Decision(False)),
        (http_request(service="ratings", path="/ratings/0"), Decision(False)),
        (
            http_request(service="ratings", path="/ratings/0", groups=("ratings-readers",)),
            Decision(True, ("ratings-from-readers",)),
        ),
        (http_request(ANONYMOUS, service="ingress", path="/x"), Decision(True, ("world-to-ingress",))),
        (http_request(ANONYMOUS, method="other", service="ingress", path="/x"), Decision(True, ("world-to-ingress",))),
    ],
)
def test_bookinfo_decides(bookinfo: PolicySet, schema: Schema, request_, decision) -> None:  # type: ignore[no-untyped-def]
    assert Engine(bookinfo, schema).decide(request_) == decision


def test_no_policy_is_a_deny(schema: Schema) -> None:
    assert engine_of("", schema).decide(http_request()) == Decision(False)


def test_an_action_is_in_its_groups(schema: Schema) -> None:
    engine = engine_of('@id("r") permit (principal, action in Action::"read", resource);', schema)
    assert engine.decide(http_request()) == Decision(True, ("r",))
    assert engine.decide(http_request(method="PUT")) == Decision(False)


def test_an_action_that_a_condition_names_knows_its_groups(schema: Schema) -> None:
    text = '@id("r") permit (principal, action, resource) when { Action::"PUT" in Action::"write" };'
    assert engine_of(text, schema).decide(http_request()) == Decision(True, ("r",))


def test_reasons_are_all_determining_policies_sorted(schema: Schema) -> None:
    both = '@id("b") permit (principal, action, resource); @id("a") permit (principal, action, resource);'
    assert engine_of(both, schema).decide(http_request()) == Decision(True, ("a", "b"))
    forbidden = both + '@id("z") forbid (principal, action, resource);'
    assert engine_of(forbidden, schema).decide(http_request()) == Decision(False, ("z",))


def test_a_forbid_that_fails_denies(schema: Schema) -> None:
    text = f"""@id("all") permit (principal, action, resource);
        @id("never") forbid (principal, action in Action::"http", resource) when {{ {OVERFLOW} }};"""
    decision = engine_of(text, schema).decide(http_request())
    assert (decision.allowed, decision.reasons) == (False, ())
    assert [error.policy for error in decision.errors] == ["never"]


def test_a_permit_that_fails_is_recorded_and_grants_nothing(schema: Schema) -> None:
    text = f'@id("sometimes") permit (principal, action in Action::"http", resource) when {{ {OVERFLOW} }};'
    decision = engine_of(text, schema).decide(http_request())
    message = "integer overflow while attempting to multiply the values `2` and `9223372036854775807`"
    assert decision == Decision(False, (), (EvaluationError("sometimes", message),))


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_a_missing_entity_is_never_silently_false(schema: Schema, missing: int) -> None:
    text = """@id("all") permit (principal, action, resource);
        @id("h") forbid (principal, action in Action::"http", resource)
        when { context.request.headers.hasTag("x-bad") || context.destination.labels.hasTag("bad") };"""
    whole = http_request()
    part = replace(whole, entities=whole.entities[:missing] + whole.entities[missing + 1 :])
    engine = engine_of(text, schema)
    assert engine.decide(whole) == Decision(True, ("all",))
    with pytest.raises(DecisionError) as caught:
        engine.decide(part)
    assert str(caught.value) == f"the entity `{whole.entities[missing].uid}` is not supplied"


def test_an_empty_entity_answers(schema: Schema) -> None:
    text = """@id("h") forbid (principal, action in Action::"http", resource)
        unless { context.request.headers.hasTag("x-good") };"""
    assert engine_of(text, schema).decide(http_request(headers={})) == Decision(False, ("h",))


def test_an_unknown_action_is_an_error(bookinfo: PolicySet, schema: Schema) -> None:
    with pytest.raises(DecisionError) as caught:
        Engine(bookinfo, schema).decide(http_request(method="PROPFIND"))
    assert str(caught.value) == 'the schema has no action `Action::"PROPFIND"`'


def test_an_entity_supplied_twice_is_an_error(bookinfo: PolicySet, schema: Schema) -> None:
    request = http_request()
    with pytest.raises(DecisionError) as caught:
        Engine(bookinfo, schema).decide(replace(request, entities=(*request.entities, request.entities[0])))
    assert str(caught.value) == f'the entity `Workload::"{PAGE}"` is supplied twice'


def test_what_cedar_cannot_read_is_an_error(bookinfo: PolicySet, schema: Schema) -> None:
    request = http_request()
    with pytest.raises(DecisionError, match="no decision"):
        Engine(bookinfo, schema).decide(replace(request, context={"request": {"path": 1.5}}))


def test_a_wide_traffic_policy_grants_nothing_in_the_other_sets(schema: Schema, root) -> None:  # type: ignore[no-untyped-def]
    from policyd.cedar.schema import parse_schema

    wide = '@id("everything") permit (principal, action, resource);'
    assert engine_of(wide, schema).decide(http_request()).allowed
    for name, action in (("issuance", "x509"), ("operators", "sign")):
        other = parse_schema((root / f"policies/{name}.cedarschema").read_text())
        empty = Engine(load_policies({}, other), other)
        asked = replace(http_request(), action=Uid("Action", action))
        assert empty.decide(asked) == Decision(False)
        with pytest.raises(DecisionError):
            engine_of(wide, schema).decide(asked)
