"""What ships is there, and is what the checkout has."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.cedar.engine import Engine
from policyd.cedar.model import Decision, Entity, Request, Uid
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import parse_schema
from policyd.sources.shipped import SchemaName, shipped_policies, shipped_schema

WEB = Uid("Workload", "spiffe://cluster.local/ns/default/sa/web")


@pytest.mark.parametrize("name", ["mesh", "issuance", "operators"])
def test_the_schemas_are_those_of_the_checkout(root: Path, name: SchemaName) -> None:
    assert shipped_schema(name) == (root / f"policies/{name}.cedarschema").read_text()


def test_the_built_in_policies_have_names_that_messages_can_show(root: Path) -> None:
    assert shipped_policies("issuance") == {"policies/issuance.cedar": (root / "policies/issuance.cedar").read_text()}


@pytest.mark.parametrize(
    ("ttl", "decision"),
    [
        ("1h", Decision(True, ("issue-registered",))),
        ("59m", Decision(True, ("issue-registered",))),
        ("61m", Decision(False)),
    ],
)
def test_an_identity_is_issued_for_an_hour_at_most(ttl: str, decision: Decision) -> None:
    schema = parse_schema(shipped_schema("issuance"))
    engine = Engine(load_policies(shipped_policies("issuance"), schema), schema)
    nobody = Uid("Unauthenticated", "anonymous")
    order = {"ttl": {"__extn": {"fn": "duration", "arg": ttl}}}
    request = Request(nobody, Uid("Action", "x509"), WEB, order, (Entity(nobody), Entity(WEB)))
    assert engine.decide(request) == decision


def test_nobody_operates_by_a_built_in_policy() -> None:
    assert load_policies(shipped_policies("operators"), parse_schema(shipped_schema("operators"))).policies == ()
