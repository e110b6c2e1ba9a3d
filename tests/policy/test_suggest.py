"""A draft from traffic: it allows all that was observed, and as little else as the data tells."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from policyd.audit.record import Record
from policyd.authz.path import canonical_path
from policyd.authz.ruling import Ruling
from policyd.cedar.schema import Schema
from policyd.errors import UnacceptablePath
from policyd.mesh.model import Mesh
from policyd.policy.fmt import formatted
from policyd.policy.replay import Projector, decide, has_question
from policyd.policy.suggest import Observed, unused_policies
from policyd.policy.suggest_paths import MANY, MAX_PATTERNS, PathTree, Pattern, all_conditions
from tests.authz.checks import PAGE, ruling_of
from tests.policy import traffic
from tests.policy.authored import POLICIES, files_of

RATINGS = 'Service::"ratings.default"'


def observed(records: Any) -> Observed:
    found = Observed()
    for one in records:
        found.add(one)
    return found


def draft(found: Observed, mesh: Mesh, schema: Schema) -> Ruling:
    return ruling_of(mesh, schema, {"draft.cedar": "\n".join(one.text for one in found.suggestions())})


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.sets(st.sampled_from(sorted(POLICIES)), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_the_draft_allows_all_that_was_observed(mesh: Mesh, schema: Schema, names: set[str], seed: int) -> None:
    ruling = ruling_of(
        mesh, schema, files_of(*sorted(names), *["world"]) if "world" not in names else files_of(*sorted(names))
    )
    records = [one for one in traffic.records(ruling, 150, seed) if has_question(one)]
    found = observed(records)
    candidate = draft(found, mesh, schema)
    projector = Projector(candidate, lambda revision, at: ruling)
    for record in records:
        question = projector.question(record)
        assert isinstance(question, bytes)
        if record.decision == "allow":
            assert decide(question, candidate).word == "allow", record
    pairs = {(str(one.tree.principal), str(one.tree.resource)) for one in candidate.policy_set.policies}
    assert len(pairs) <= len({(one.principal, one.resource) for one in records if one.decision == "allow"})


def asked(ruling: Ruling, path: str, method: str = "GET", **changes: Any) -> Record:
    """The product page asks for ratings, and is allowed."""
    listener = ruling.mesh.listeners["ratings-v1/inbound"]
    import random

    facts, _ = traffic.facts_of(random.Random(1), ruling.mesh, changes.pop("at", traffic.START))
    headers = changes.pop("headers", {})
    facts = facts._replace(
        principal=PAGE,
        service="ratings.default",
        method=method,
        target=path,
        instance="ratings-v1",
        headers=headers,
    )
    record = traffic.record(traffic.entry(facts, listener, ruling, 7))
    return msgspec.structs.replace(record, decision="allow", **changes)


def test_a_suggestion_says_what_it_was_made_of(ruling: Ruling) -> None:
    day = timedelta(days=1)
    records = [asked(ruling, f"/ratings/{number}", at=traffic.START + number * day) for number in range(3)]
    records += [asked(ruling, "/ratings/7", "POST"), asked(ruling, "/health"), asked(ruling, "/x", "PURGE")]
    texts = [one.text for one in observed(records).suggestions()]
    account = "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"
    assert (
        texts[0]
        == f"""\
// GET 4
@id("ratings-from-bookinfo-productpage")
@observed("4 requests, 2026-11-20T12:00:00Z to 2026-11-22T12:00:00Z")
permit (
  principal == Workload::"{account}",
  action == Action::"GET",
  resource == {RATINGS}
)
when
{{
  context.request.path == "/health" ||
  (context.request.path like "/ratings/*" && context.request.segments == 2)
}};
"""
    )
    assert '@id("ratings-from-bookinfo-productpage-2")' in texts[1]
    assert 'context.request.path like "/ratings/*" && context.request.segments == 2' in texts[1]
    assert '["PURGE"].contains(context.request.method)' in texts[2]
    assert all(formatted(text, "draft") == text for text in texts)


def test_methods_that_are_used_alike_share_a_policy(ruling: Ruling) -> None:
    records = [asked(ruling, f"/ratings/{number}", method) for number in range(3) for method in ("GET", "PUT")]
    [only] = observed(records).suggestions()
    assert only.actions == ('Action::"GET"', 'Action::"PUT"')
    assert (only.seen.count, only.text.splitlines()[0]) == (6, "// GET 3, PUT 3")


@pytest.mark.parametrize(
    ("values", "masked", "condition"),
    [
        (["jason"] * 30, False, 'context.request.headers.getTag("end-user") == "jason"'),
        (["jason", "mary"] * 15, False, '["jason", "mary"].contains(context.request.headers.getTag("end-user"))'),
        (["jason"] * 19, False, ""),  # too few to show it
        ([*["jason"] * 30, None], False, ""),  # one without
        ([f"user{number}" for number in range(30)], False, ""),  # too many values
        (["jason"] * 30, True, ""),
        (["ja\u00fcson"] * 30, False, ""),
    ],
)
def test_a_header_is_a_condition_only_where_the_data_shows_it(
    ruling: Ruling, values: list[str | None], masked: bool, condition: str
) -> None:
    records = []
    for value in values:
        record = asked(ruling, "/ratings/1")
        sent = {} if value is None else {"end-user": value}
        context = {"request": {"path": "/ratings/1", "method": "GET", "headers": sent}}
        hidden = ("request.headers.end-user",) if masked else ()
        records.append(msgspec.structs.replace(record, context=context, masked=hidden))
    [only] = observed(records).suggestions()
    text = " ".join(only.text.split())
    assert (condition in text) if condition else ("headers" not in text)


def test_what_policies_looked_at_besides_is_said(ruling: Ruling) -> None:
    record = asked(ruling, "/ratings/1")
    context = {**record.context, "client_ip": {"__extn": {"fn": "ip", "arg": "10.0.0.1"}}}
    [only] = observed([msgspec.structs.replace(record, context=context)]).suggestions()
    assert "// the policies of then looked at context.client_ip too; no condition was made of it" in only.text


def test_of_a_masked_path_the_part_in_front_is_kept(ruling: Ruling) -> None:
    record = asked(ruling, "/ratings/1")
    context = {"request": {"path": "/ratings/eyJ[masked]/x", "method": "GET"}}
    [only] = observed([msgspec.structs.replace(record, context=context, masked=("request.path",))]).suggestions()
    assert 'context.request.path like "/ratings/*" }' in " ".join(only.text.split())


def test_only_what_was_allowed_counts(ruling: Ruling) -> None:
    record = asked(ruling, "/ratings/1")
    changes: list[dict[str, Any]] = [
        {"decision": "deny"},
        {"decision": "error"},
        {"kind": "change"},
    ]
    assert observed(msgspec.structs.replace(record, **change) for change in changes).suggestions() == []
    strange = observed([msgspec.structs.replace(record, resource='Service::"a\nb"')])
    assert (strange.suggestions(), strange.left_out) == ([], 1)


def test_permits_that_allowed_nothing_are_listed(ruling: Ruling) -> None:
    found = observed([msgspec.structs.replace(asked(ruling, "/ratings/1"), reasons=("a",))])
    assert unused_policies(["a", "b"], found) == ["b"]


# ---- paths

SEGMENTS = st.one_of(
    st.sampled_from(["", "a", "b", "*", 'q"', "\\", "1", "42", "0" * 40, "5f2e1c9a", "%20", "ü", "deadbeef", "v1"]),
    st.integers(0, 99).map(lambda number: f"item-{number}"),
)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))


def matches(pattern: Pattern, path: str) -> bool:
    segments = tuple(path[1:].split("/"))
    if pattern.open:
        if len(segments) <= len(pattern.segments):
            return False
    elif len(segments) != len(pattern.segments):
        return False
    pairs = zip(pattern.segments, segments, strict=False)
    return all(mine == "*" or mine.removeprefix("\0") == other for mine, other in pairs)


def is_canonical(path: str) -> bool:
    try:
        return canonical_path(path) == path
    except UnacceptablePath:
        return False


@settings(max_examples=150, deadline=None)
@given(st.lists(PATHS, min_size=1, max_size=120))
@example([f"/{one}/{two}/{three}" for one in "abcde" for two in "fghij" for three in "klmno"])
def test_every_path_is_matched_by_few_patterns(paths: list[str]) -> None:
    tree = PathTree()
    for path in paths:
        tree.add(path)
    patterns = tree.patterns()
    assert len(patterns) <= MAX_PATTERNS
    assert [path for path in paths if not any(matches(one, path) for one in patterns)] == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PATHS.filter(is_canonical), min_size=1, max_size=30))
def test_what_a_pattern_matches_cedar_matches(mesh: Mesh, schema: Schema, paths: list[str]) -> None:
    tree = PathTree()
    for path in paths:
        tree.add(path)
    condition = all_conditions(tree.patterns()) or "true"
    text = f'@id("p") permit (principal, action in Action::"http", resource == {RATINGS}) when {{ {condition} }};'
    ruling = ruling_of(mesh, schema, {"p.cedar": text})
    sample = asked(ruling, "/x")
    for path in paths:
        context = {"request": {"path": path, "method": "GET", "host": "ratings"}}
        question = Projector(ruling, lambda *_: ruling).question(msgspec.structs.replace(sample, context=context))
        assert isinstance(question, bytes)
        assert decide(question, ruling).word == "allow"


@pytest.mark.parametrize(
    ("paths", "patterns"),
    [
        (["/"], [Pattern(("",))]),
        (["/a", "/b"], [Pattern(("a",)), Pattern(("b",))]),
        (["/a/1", "/a/2"], [Pattern(("a", "*"))]),
        (["/a/1", "/a/me"], [Pattern(("a", "*"))]),
        (["/u/5f0c-x", "/u/0af7651916cd43dd8448eb211c80319c/x"], [Pattern(("u", "*", "x")), Pattern(("u", "5f0c-x"))]),
        (["/u/0af76519-16cd-43dd-8448-eb211c80319c"], [Pattern(("u", "*"))]),
        ([f"/n/name{chr(97 + n)}" for n in range(MANY)], [Pattern(("n", f"name{chr(97 + n)}")) for n in range(MANY)]),
        ([f"/n/name{chr(97 + n)}/x" for n in range(MANY + 1)], [Pattern(("n", "*", "x"))]),
    ],
)
def test_paths_are_generalised(paths: list[str], patterns: list[Pattern]) -> None:
    tree = PathTree()
    for path in paths:
        tree.add(path)
    assert tree.patterns() == patterns


def test_a_hostile_number_of_paths_stays_small() -> None:
    tree = PathTree()
    for number in range(20_000):
        tree.add(f"/x{number}/y{number}/z{number}")
    patterns = tree.patterns()
    assert len(patterns) <= MAX_PATTERNS
    assert any(matches(one, "/x19999/y19999/z19999") for one in patterns)
