"""What is remembered answers as if it had been decided again."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from policyd.cedar.cache import CacheStats, DecisionCache
from policyd.cedar.engine import Engine
from policyd.cedar.model import Decision, Entity, Request, Uid
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.errors import DecisionError
from tests.cedar.requests import http_request, ref

TEXT = """@id("p") permit (principal, action in Action::"http", resource) when {
    context.request.path == "/a" && context.request.headers.hasTag("x") && principal is Workload &&
    principal.hasTag("team") && context.destination.labels.hasTag("version") };"""
NOON = {"__extn": {"fn": "datetime", "arg": "2026-11-23T12:00:00.000Z"}}
LATER = {"__extn": {"fn": "datetime", "arg": "2026-11-23T12:00:01.000Z"}}


def engine_of(text: str, schema: Schema, cached: int = 100) -> Engine:
    return Engine(load_policies({"p": text}, schema), schema, cached=cached)


def asked(**changes: Any) -> Request:
    given = {"path": "/a", "headers": {"x": "1"}, "labels": {"version": "v1"}, "tags": {"team": "a"}, **changes}
    return http_request(**given)


BASE = asked()


def with_context(**changes: Any) -> Request:
    return replace(BASE, context={**BASE.context, **changes})


def with_entity(at: int, **changes: Any) -> Request:
    entities = list(BASE.entities)
    entities[at] = replace(entities[at], **changes)
    return replace(BASE, entities=tuple(entities))


@pytest.mark.parametrize(
    "other",
    [
        asked(),
        with_context(time=LATER),
        with_context(source={"ip": NOON, "port": 1}),
        with_context(request={**BASE.context["request"], "host": "other"}),
        asked(headers={"x": "1", "x-request-id": "another"}),
        with_entity(0, attrs={**BASE.entities[0].attrs, "namespace": "default"}),
        with_entity(0, parents=(Uid("Group", "unasked"),)),
        with_entity(3, tags={"version": "v1", "app": "reviews"}),
    ],
)
def test_what_no_candidate_reads_is_the_same_question(schema: Schema, other: Request) -> None:
    engine = engine_of(TEXT, schema)
    decision = engine.decide(BASE)
    assert decision == Decision(True, ("p",))
    assert engine.decide(other) == replace(decision, cached=True)
    assert engine.stats() == CacheStats(hits=1, misses=1, size=1)


@pytest.mark.parametrize(
    ("other", "allowed"),
    [
        (asked(path="/b"), False),
        (asked(headers={}), False),
        (asked(headers={"x": "2"}), True),
        (asked(tags={}), False),
        (asked(tags={"team": "b"}), True),
        (asked(labels={}), False),
        (asked(method="PUT"), True),
        (asked(service="ratings"), True),
        (asked(principal=Uid("Workload", "another")), True),
        (asked(principal=Uid("Unauthenticated", "anonymous")), False),
    ],
)
def test_what_a_candidate_reads_is_another_question(schema: Schema, other: Request, allowed: bool) -> None:
    engine = engine_of(TEXT, schema)
    engine.decide(BASE)
    assert engine.decide(other) == Decision(allowed, ("p",) if allowed else ())
    assert engine.stats() == CacheStats(hits=0, misses=2, size=2)


def test_headers_of_the_wrong_place_are_not_mixed_up(schema: Schema) -> None:
    """The same content under another name is another question."""
    text = """@id("p") permit (principal, action in Action::"http", resource)
        when { context.request.headers.hasTag("x") && context.request.path == "1" };"""
    engine = engine_of(text, schema)
    assert engine.decide(asked(path="1", headers={"x": ""})).allowed
    assert not engine.decide(asked(path="", headers={"x": "1"})).allowed
    swapped = asked(path="1", headers={"x": ""})
    other = Entity(Uid("Headers", "other"))
    context = {**swapped.context, "request": {**swapped.context["request"], "headers": ref(other.uid)}}
    assert not engine.decide(replace(swapped, context=context, entities=(*swapped.entities, other))).allowed


@pytest.mark.parametrize(
    "condition",
    ['context.time > datetime("2026-11-23T12:00:00.500Z")', "context == context", "context has time"],
)
def test_what_depends_on_the_time_is_never_remembered(schema: Schema, condition: str) -> None:
    engine = engine_of(
        f'@id("p") permit (principal, action in Action::"http", resource) when {{ {condition} }};', schema
    )
    decisions = [engine.decide(with_context(time=time)) for time in (NOON, LATER, LATER)]
    assert [one.cached for one in decisions] == [False, False, False]
    assert engine.stats() == CacheStats(bypasses=3)


def test_only_candidates_that_read_the_time_pass_by(schema: Schema) -> None:
    text = (
        TEXT
        + """@id("t") permit (principal, action == Action::"PUT", resource)
        when { context.time > datetime("2026-11-23T12:00:00.000Z") };"""
    )
    engine = engine_of(text, schema)
    for method in ("GET", "GET", "PUT", "PUT"):
        engine.decide(asked(method=method))
    assert engine.stats() == CacheStats(hits=1, misses=1, size=1, bypasses=2)


def test_errors_of_policies_are_remembered_and_errors_of_the_engine_are_not(schema: Schema) -> None:
    text = """@id("p") permit (principal, action in Action::"http", resource)
        when { context.request.segments * 9223372036854775807 > 0 };"""
    engine = engine_of(text, schema)
    failed = engine.decide(asked(path="/a/b"))
    assert [error.policy for error in failed.errors] == ["p"]
    assert engine.decide(asked(path="/a/b")) == replace(failed, cached=True)
    broken: Mapping[str, Any] = {"segments": 1.5}
    for _ in range(2):
        with pytest.raises(DecisionError):
            engine.decide(with_context(request=broken))
    assert engine.stats() == CacheStats(hits=1, misses=3, size=1)


def test_a_cache_is_bounded_and_forgets_what_was_used_longest_ago() -> None:
    cache = DecisionCache(2)
    for key in ("a", "b"):
        cache.keep(key, Decision(True, (key,)))
    assert cache.find("a") == Decision(True, ("a",), cached=True)
    cache.keep("c", Decision(False))
    assert [cache.find(key) is not None for key in "abc"] == [True, False, True]
    assert cache.stats() == CacheStats(hits=3, misses=1, size=2)


def test_a_cache_of_no_size_remembers_nothing(schema: Schema) -> None:
    engine = engine_of(TEXT, schema, cached=0)
    assert [engine.decide(BASE).cached for _ in range(2)] == [False, False]
    assert engine.stats() == CacheStats(misses=2)


def test_many_threads_get_one_answer(schema: Schema) -> None:
    engine = engine_of(TEXT, schema, cached=4)
    requests = [asked(path=path, headers={"x": str(value)}) for path in ("/a", "/b") for value in range(4)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(engine.decide, requests * 100))
    assert [one.allowed for one in answers] == [True, True, True, True, False, False, False, False] * 100
    stats = engine.stats()
    assert (stats.hits + stats.misses, stats.size) == (800, 4)
