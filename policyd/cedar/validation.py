"""Strict validation of policies against a schema, told once a policy and cause, with its place.

Law: validation is Cedar's; here its answers only find their policy and lose their repetitions (Cedar repeats
an error for every action that a policy covers).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import cedarpy

from policyd.cedar.hints import Hint, hint, plain
from policyd.cedar.parsing import Source
from policyd.cedar.schema import Schema
from policyd.errors import Problem

Place = tuple[str, Source]  # a policy's id, and where it was written
Finding = tuple[int, str]  # the number of a policy, -1 for none of them, and what is wrong with it

_AT_ONCE = 500

_PREFIX = re.compile(r"^for policy `policy\d+`, ")
_ACTION = re.compile(r' in context for (Action::"(?:[^"\\]|\\.)*")')
_NUMBER = re.compile(r"^policy(\d+)$")
_NO_ACTION = "unable to find an applicable action"


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


def validation_problems(found: Sequence[Finding], places: Sequence[Place], schema: Schema) -> list[Problem]:
    """What Cedar found, told once a policy and cause; `places[i]` is where policy number i was written."""
    causes: dict[Finding, list[str]] = {}
    for number, message in found:
        action = _ACTION.search(message)
        actions = causes.setdefault((number, _ACTION.sub("", message)), [])
        if action:
            actions.append(action[1])
    misspelt = {number for number, message in causes if message.startswith("unrecognized")}
    return [
        _problem(places[index] if index >= 0 else None, message, sorted(actions), schema)
        for (index, message), actions in sorted(causes.items())
        if index not in misspelt or not message.startswith(_NO_ACTION)  # which only follows from the other
    ]


def _problem(place: Place | None, message: str, actions: list[str], schema: Schema) -> Problem:
    found = hint(place[1].text, message, schema) if place else Hint()
    message = plain(message)
    told = message if not actions else f"{message} in the context of {', '.join(_together(actions, schema))}"
    if place is None:
        return Problem("policy_invalid", f"the policies are not valid: {told}")
    policy, source = place
    remedy = found.remedy
    if actions and not remedy:
        remedy = 'name the actions that have it, `action in Action::"http"` for example'
    told = f"{f'`{policy}`' if policy else 'a policy'} is not valid: {told}"
    if found.offset is None:
        return Problem("policy_invalid", told, source.file, source.line, remedy=remedy)
    line, column = source.lines.place(source.statement.start + found.offset)
    return Problem("policy_invalid", told, source.file, line, column, remedy)


def _together(actions: list[str], schema: Schema) -> list[str]:
    """All actions of a group as the group, which is what a policy names."""
    alone = {str(uid) for uid in schema.actions} - {str(one) for above in schema.actions.values() for one in above}
    for group in {one for above in schema.actions.values() for one in above}:
        members = {str(uid) for uid, above in schema.actions.items() if group in above} & alone
        if members == set(actions):
            return [str(group)]
    return actions
