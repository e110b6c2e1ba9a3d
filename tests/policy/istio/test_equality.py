"""What Istio decides, the generated Cedar decides: random policies and requests, both ways."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyd.cedar.schema import Schema
from policyd.mesh.model import Mesh
from tests.policy.istio.cases import SENT, calls, policy_sets, single_rules
from tests.policy.istio.oracle import allows
from tests.policy.istio.world import ISTIO, call_at, decided, ruling_of, translated_values

INSTANCES: Final = ("web-v1", "web-v2", "api-1", "cart-1", "edge")
CASES: Final = int(os.environ.get("POLICYD_IMPORT_CASES", "10000"))  # decisions compared
REQUESTS: Final = 8  # of each policy set, at every instance

SINGLES: Final = single_rules()


@pytest.mark.parametrize("name", SINGLES)
def test_every_value_by_itself_matches_what_it_matches_in_istio(name: str, mesh: Mesh, schema: Schema) -> None:
    rules, part = SINGLES[name]
    outcomes = set()
    for rule in rules:
        policy = {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "single", "namespace": "default"},
            "spec": {"rules": [rule]},
        }
        ruling = ruling_of(translated_values([policy], mesh).files, mesh, schema)
        for value in SENT[part]:
            for instance in ("web-v1", "api-1"):
                call = call_at(instance, mesh, **{part: value})
                expected = allows([policy], call, ISTIO)
                assert decided(ruling, call, instance) == expected, (rule, call)
                outcomes.add(expected)
    assert outcomes == {True, False}


@settings(max_examples=-(-CASES // (REQUESTS * len(INSTANCES))), deadline=None, suppress_health_check=list(HealthCheck))
@given(policies=policy_sets(), requests=st.lists(calls(), min_size=REQUESTS, max_size=REQUESTS))
def test_istio_and_cedar_decide_alike(
    policies: list[dict[str, Any]], requests: list[dict[str, Any]], mesh: Mesh, schema: Schema
) -> None:
    made = translated_values(policies, mesh)
    ruling = ruling_of(made.files, mesh, schema)
    for what in requests:
        for instance in INSTANCES:
            call = call_at(instance, mesh, **what)
            expected = allows(policies, call, ISTIO)
            assert decided(ruling, call, instance) == expected, (call, made.files)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(policies=policy_sets(), requests=st.lists(calls(), min_size=4, max_size=4), dry=st.sets(st.integers(0, 5)))
def test_with_dry_runs_cedar_decides_what_istio_would_without_the_annotation(
    policies: list[dict[str, Any]], requests: list[dict[str, Any]], dry: set[int], mesh: Mesh, schema: Schema
) -> None:
    enforced, tried = [], []
    for at, policy in enumerate(policies):
        metadata = {name: value for name, value in policy["metadata"].items() if name != "annotations"}
        enforced.append({**policy, "metadata": metadata})
        annotations = {"annotations": {"istio.io/dry-run": "true"}} if at in dry else {}
        tried.append({**policy, "metadata": {**metadata, **annotations}})
    ruling = ruling_of(translated_values(tried, mesh, dry_runs=True).files, mesh, schema)
    for what in requests:
        for instance in INSTANCES:
            call = call_at(instance, mesh, **what)
            assert decided(ruling, call, instance) == allows(enforced, call, ISTIO), call
