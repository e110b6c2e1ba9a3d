"""Cases in the JSON form of Cedar's own `cedar run-tests`: whole requests with the entities that they see.

    [{"name": …, "request": {"principal": …, "action": …, "resource": …, "context": {…}}, "entities": [...],
      "decision": "allow", "reason": ["some-policy"], "num_errors": 0}]

Entities are those of the case alone; one that the request names and the case lacks is taken as empty, as
Cedar does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import Field

from policyd.cedar.model import Entity, Request, Uid
from policyd.cedar.reads import entities_in
from policyd.errors import InvalidInput, Problem
from policyd.policy.case_model import Case, Expected
from policyd.policy.checks import items_of
from policyd.strict import Many, Model, parse
from policyd.yaml import Document, load_one

MAX_CASES: Final = 5_000

_UID = re.compile(r'((?:[A-Za-z_][A-Za-z0-9_]*::)*[A-Za-z_][A-Za-z0-9_]*)::"((?:[^"\\]|\\["\\])*)"')


class _RequestSpec(Model):
    principal: str
    action: str
    resource: str
    context: Mapping[str, Any] = {}


class _EntitySpec(Model):
    uid: Mapping[str, Any]
    attrs: Mapping[str, Any] = {}
    parents: Many[Mapping[str, Any]] = ()
    tags: Mapping[str, Any] = {}


class _CaseSpec(Model):
    name: str = ""
    request: _RequestSpec
    entities: Many[_EntitySpec]
    decision: Expected
    reason: Many[str]
    num_errors: Annotated[int, Field(alias="num_errors", ge=0)]


def parse_json_cases(text: str, file: str) -> list[Case]:
    """Parse one file; raises InvalidInput with every problem."""
    problems: list[Problem] = []
    cases: list[Case] = []
    # JSON is YAML but for tabs, which JSON has between values only: so places, bounds and duplicate keys are told too
    for item in items_of(load_one(text.replace("\t", " "), file), MAX_CASES):
        spec = parse(_CaseSpec, item, problems)
        if spec is None:
            continue
        try:
            cases.append(_case(spec, item))
        except ValueError as error:
            problems.append(item.problem("case", str(error), ["request"]))
    if problems:
        raise InvalidInput(problems)
    return cases


def _case(spec: _CaseSpec, item: Document) -> Case:
    asked = spec.request
    entities = _entities(spec.entities)
    request = Request(
        principal=_parse_uid(asked.principal),
        action=_parse_uid(asked.action),
        resource=_parse_uid(asked.resource),
        context=asked.context,
        entities=(),
    )
    named = (request.principal, request.resource, *entities_in(request.context))
    supplied = {**{uid: Entity(uid) for uid in named}, **{one.uid: one for one in entities}}
    return Case(
        name=spec.name or f"number {item.place.line}",
        asked=f"{asked.principal} {asked.action} {asked.resource}",
        question=Request(
            request.principal, request.action, request.resource, request.context, tuple(supplied.values())
        ),
        expect=spec.decision,
        by=tuple(spec.reason),
        errors=spec.num_errors,
        file=item.file,
        line=item.place.line,
    )


def _entities(specs: Sequence[_EntitySpec]) -> list[Entity]:
    """As the engine wants them: with all ancestors for parents. The action's own are the schema's."""
    direct = {_uid(spec.uid): [_uid(parent) for parent in spec.parents] for spec in specs}

    def above(uid: Uid) -> list[Uid]:
        found: list[Uid] = []
        waiting = list(direct.get(uid, ()))
        while waiting:
            parent = waiting.pop()
            if parent not in found:
                found.append(parent)
                waiting += direct.get(parent, ())
        return sorted(found)

    named = ((_uid(spec.uid), spec) for spec in specs)
    return [Entity(uid, spec.attrs, above(uid), spec.tags) for uid, spec in named if uid.type != "Action"]


def _uid(value: Mapping[str, Any]) -> Uid:
    inner = value.get("__entity", value)
    if not isinstance(inner, Mapping) or not all(isinstance(inner.get(key), str) for key in ("type", "id")):
        raise ValueError('an entity\'s id has the form {"type": …, "id": …}')
    return Uid(inner["type"], inner["id"])


def _parse_uid(text: str) -> Uid:
    """`Type::"id"`, as Cedar writes it."""
    match = _UID.fullmatch(text)
    if match is None:
        raise ValueError(f'`{text[:120]}` is no entity; write it as in `Action::"GET"`')
    return Uid(match[1], re.sub(r"\\(.)", r"\1", match[2]))
