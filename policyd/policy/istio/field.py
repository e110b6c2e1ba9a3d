"""One field of a rule on its way to Cedar: its values with their place, and the test that they become.

Law: a value without an exact form is refused at its own place; the rest of the rule is read all the same, so that all
that is wrong is told at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from policyd.errors import Problem
from policyd.policy.istio.expression import FALSE, Test
from policyd.policy.istio.read import Declared


@dataclass(frozen=True, slots=True)
class Place:
    """A path in a policy; what is refused or to be known there goes into the lists, which all places share."""

    declared: Declared
    path: tuple[str | int, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def at(self, *steps: str | int) -> Place:
        """Return a place below this one."""
        return replace(self, path=(*self.path, *steps))

    def refuse(self, message: str, remedy: str = "") -> None:
        """Tell that what stands here has no exact form."""
        self.problems.append(self.declared.problem("inexact", message, self.path, remedy))

    def note(self, message: str, remedy: str = "") -> None:
        """Tell what is translated, and may not be what was meant."""
        self.notes.append(self.declared.problem("note", message, self.path, remedy))


@dataclass(frozen=True, slots=True)
class Field:
    """A field as Istio reads it: `wanted` holds (None where there are no values) and `unwanted` does not.

    `identity`: both may ask for attributes of a Workload, and neither holds for a caller without an identity.
    `caller`: the one id that `wanted` asks for; `methods`: the methods of the schema that are all it asks for.
    """

    wanted: Test | None = None
    unwanted: Test = FALSE
    identity: bool = False
    caller: str = ""
    methods: Sequence[str] = ()
