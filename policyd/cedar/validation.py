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


def cedar_errors(texts: Sequence[str], schema: Schema) -> list[cedarpy.ValidationError]:
    """What Cedar finds wrong with these policies, `policy<i>` being `texts[i]`; ValueError where one does not parse.

    Other threads run meanwhile: it takes a second for 10,000 policies.
    """
    return list(cedarpy.validate_policies("\n".join(texts), schema.handle, release_gil=True).errors)


def validation_problems(errors: Sequence[cedarpy.ValidationError], places: Sequence[Place]) -> list[Problem]:
    """What Cedar found, told once a policy and cause; `places[i]` is where `policy<i>` was written."""
    causes: dict[tuple[int, str], list[str]] = {}
    for error in errors:
        number = _NUMBER.match(error.policy_id)
        message = _PREFIX.sub("", error.error)
        action = _ACTION.search(message)
        actions = causes.setdefault((int(number[1]) if number else -1, _ACTION.sub("", message)), [])
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
