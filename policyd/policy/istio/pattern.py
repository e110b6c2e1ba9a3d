"""Istio's string match: `abc` exact, `abc*` the start, `*abc` the end, `*` that something is there.

Law: as Istio reads it, so a star anywhere else is a mere character, and a value that starts with a star matches an end
whatever its last character is (matcher.StringMatcher).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from policyd.policy.istio.expression import TRUE, Test, either, equal, like


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a value asks for; `text` has no star of its own meaning any more."""

    kind: Literal["present", "exact", "prefix", "suffix"]
    text: str = ""

    @property
    def odd(self) -> bool:
        """Whether a star is left, which Istio takes for a character."""
        return "*" in self.text


def pattern_of(value: str) -> Pattern:
    """Read a value."""
    if value == "*":
        return Pattern("present")
    if value.startswith("*"):
        return Pattern("suffix", value[1:])
    if value.endswith("*"):
        return Pattern("prefix", value[:-1])
    return Pattern("exact", value)


def matches(attribute: str, patterns: Sequence[Pattern], present: Test = TRUE) -> Test:
    """One of the patterns matches the text `attribute`; `present` says that there is something."""
    return either(_matches(attribute, patterns, present))


def _matches(attribute: str, patterns: Sequence[Pattern], present: Test) -> Iterator[Test]:
    yield equal(attribute, [one.text for one in patterns if one.kind == "exact"])
    for one in patterns:
        match one.kind:
            case "present":
                yield present
            case "prefix":
                yield like(attribute, one.text, "")
            case "suffix":
                yield like(attribute, "", one.text)
