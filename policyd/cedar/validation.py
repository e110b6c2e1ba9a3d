"""Strict validation of policies against a schema, told once a policy and cause, with its place.

Law: validation is Cedar's; here its answers only find their policy and lose their repetitions (Cedar repeats
an error for every action that a policy covers).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import cedarpy

from policyd.cedar.schema import Schema
from policyd.errors import Problem

Place = tuple[str, str, int]  # a policy's id, its file and its first line
Finding = tuple[int, str]  # the number of a policy, -1 for none of them, and what is wrong with it

_AT_ONCE = 500

_PREFIX = re.compile(r"^for policy `policy\d+`, ")
_ACTION = re.compile(r' in context for (Action::"(?:[^"\\]|\\.)*")')
_NUMBER = re.compile(r"^policy(\d+)$")
_REMEDIES = (
    ("unrecognized entity type", "the schema lists the types that policies may name"),
    ("unrecognized action", 'the schema lists the actions; any other method is `Action::"other"`'),
    (
        "unable to find an applicable action",
        "no action of the schema has this principal, action and resource together",
    ),
    ("unable to guarantee safety of access to optional attribute", "ask for it first with `has`"),
    ("unable to guarantee safety of access to tag", "ask for it first with `hasTag`"),
)


def cedar_errors(texts: Sequence[str], schema: Schema) -> list[Finding]:
    """What Cedar finds wrong with these policies; ValueError where one does not parse.

    Other threads run meanwhile: it takes a second for 10,000 policies. They are taken in portions, each by itself, so
    that the parsed text of all of them need not be held (16 KB a policy).
    """
    found: list[Finding] = []
    for start in range(0, len(texts), _AT_ONCE):
        portion = "\n".join(texts[start : start + _AT_ONCE])
        for error in cedarpy.validate_policies(portion, schema.handle, release_gil=True).errors:
            number = _NUMBER.match(error.policy_id)
            found.append((start + int(number[1]) if number else -1, _PREFIX.sub("", error.error)))
    return found


def validation_problems(found: Sequence[Finding], places: Sequence[Place]) -> list[Problem]:
    """What Cedar found, told once a policy and cause; `places[i]` is where policy number i was written."""
    causes: dict[Finding, list[str]] = {}
    for number, message in found:
        action = _ACTION.search(message)
        actions = causes.setdefault((number, _ACTION.sub("", message)), [])
        if action:
            actions.append(action[1])
    nowhere = ("", "", 0)
    return [
        _problem(places[index] if index >= 0 else nowhere, message, sorted(actions))
        for (index, message), actions in sorted(causes.items())
    ]


def _problem(where: Place, message: str, actions: list[str]) -> Problem:
    policy, file, line = where
    remedy = next((words for part, words in _REMEDIES if part in message), "")
    if actions:
        message += f" in the context of {', '.join(actions)}"
        remedy = remedy or 'name the actions that have it, `action in Action::"http"` for example'
    return Problem("policy_invalid", f"`{policy}` is not valid: {message}", file, line, remedy=remedy)
