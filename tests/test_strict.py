"""Documents become models, or problems with file, line and field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.errors import Problem
from policyd.strict import NOTHING, Duration, Many, Model, Name, PortNumber, Refused, describe, parse, parse_duration
from policyd.yaml import load_one


class Part(Model):
    """A part of the sample below."""

    wait_for: Duration | None = None
    port: PortNumber = 1


class Sample(Model):
    """A little of everything."""

    name: Name
    parts: Many[Part] = ()
    by_name: Mapping[str, Part] = NOTHING
    labels: Mapping[str, str] = NOTHING
    enabled: bool = False
    mode: Literal["this", "that"] = "this"


def parsed(text: str) -> tuple[Sample | None, list[str]]:
    """Give the model, and the problems as they are shown."""
    problems: list[Problem] = []
    model = parse(
        Sample,
        load_one(text, "s.yaml"),
        problems,
        Refused("Sample", {"mirror": "", "glass": "it breaks; use `mirror`"}),
    )
    return model, [str(problem) for problem in problems]


def test_a_good_document_becomes_the_model() -> None:
    text = "name: a\nparts: [{waitFor: 1m30s}]\nbyName: {x: {port: 80}}\nlabels: {v: '1'}\nenabled: true\nmode: that\n"
    expected = Sample(
        name="a",
        parts=(Part(wait_for=90.0),),
        by_name={"x": Part(port=80)},
        labels={"v": "1"},
        enabled=True,
        mode="that",
    )
    assert parsed(text) == (expected, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("parts: []", "s.yaml:1: `name` is missing; add it"),
        ("name: a\nenabled: no", "s.yaml:2: `enabled` must be `true` or `false`, not the text `no`"),
        ("name: a\nmode: on", "s.yaml:2: `mode` must be 'this' or 'that', not the text `on`"),
        ("name: 1", "s.yaml:1: `name` must be text, not the number 1; write it in quotes"),
        ("name: a\nlabels: {v: 1.0}", "s.yaml:2: `labels.v` must be text, not the number 1.0; write it in quotes"),
        ("name: a\nlabels: {v: true}", "s.yaml:2: `labels.v` must be text, not the boolean `true`; write it in quotes"),
        ("name: a\nlabels:", "s.yaml:2: `labels` must be a mapping, not empty"),
        ("name: a\nlabels: [b]", "s.yaml:2: `labels` must be a mapping, not a list of 1"),
        ("name: a\nparts: {}", "s.yaml:2: `parts` must be a list, not an empty mapping"),
        ("name: a\nparts:\n- port: 80\n- port: 0", "s.yaml:4: `parts[1].port` must be at least 1, not the number 0"),
        ("name: a\nparts: [{port: 70000}]", "s.yaml:2: `parts[0].port` must be at most 65535, not the number 70000"),
        ("name: a\nparts: [{port: '80'}]", "s.yaml:2: `parts[0].port` must be a whole number, not the text `80`"),
        ("name: a\nparts: [{port: true}]", "s.yaml:2: `parts[0].port` must be a whole number, not the boolean `true`"),
        ("name: a\nparts: [x]", "s.yaml:2: `parts[0]` must be a mapping, not the text `x`"),
        ("name: a\nparts: [{prot: 1}]", "s.yaml:2: unknown field `prot` in `parts[0]`; did you mean `port`?"),
        ("name: a\nby_name: {}", "s.yaml:2: unknown field `by_name`; did you mean `byName`?"),
        ("name: a\nbyName: {x: {zz: 1}}", "s.yaml:2: unknown field `zz` in `byName.x`; known are `port`, `waitFor`"),
        (
            "name: a\nmirror: 1",
            "s.yaml:2: field `mirror` of Sample is not supported yet; "
            "remove it, so that nothing is thought to hold that does not",
        ),
        ("name: a\nglass: 1", "s.yaml:2: field `glass` of Sample is not supported; it breaks; use `mirror`"),
        ("[]", "s.yaml:1: the document must be a mapping, not an empty list"),
        (
            "name: A_b",
            "s.yaml:1: `name`: `A_b` is no DNS label; use at most 63 lower-case letters, digits and dashes",
        ),
        (
            "name: a\nparts: [{waitFor: soon}]",
            "s.yaml:2: `parts[0].waitFor`: `soon` is no duration; write it as in `10s`, `0.5s` or `1m30s`",
        ),
    ],
)
def test_a_bad_document_is_refused_with_its_line(text: str, problem: str) -> None:
    assert parsed(text) == (None, [problem])


def test_all_problems_are_found_at_once() -> None:
    _, problems = parsed("parts: [{port: 0}, {x: 1}]\nenabled: yes\n")
    assert len(problems) == 4


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10.0), ("0.5s", 0.5), ("1h", 3600.0), ("1m30s", 90.0), ("7d", 604_800.0), ("250ms", 0.25), ("0s", 0.0)],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "10", "s", "-1s", "1 s", "1s\n", "1y", "1.s", ".5s", "1e3s", "infs", "99999d", 10, None]
)
def test_other_texts_are_no_durations(text: object) -> None:
    with pytest.raises(ValueError, match=r"is no duration|is longer"):
        parse_duration(text)


@given(st.text(max_size=40))
def test_any_text_is_a_duration_in_bounds_or_refused(text: str) -> None:
    try:
        assert 0 <= parse_duration(text) <= 10 * 365 * 86_400
    except ValueError:
        return


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "empty"), (True, "the boolean `true`"), ("x" * 200, f"the text `{'x' * 80}`"), ({}, "an empty mapping")],
)
def test_values_are_named_in_bounded_words(value: object, words: str) -> None:
    assert describe(value) == words
