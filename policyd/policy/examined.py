"""A policy prepared for looking at: its parts with their places, and what its scope makes sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cedarpy import pst

from policyd.cedar.model import Uid
from policyd.cedar.policies import Policy
from policyd.cedar.schema import Schema
from policyd.cedar.syntax_tree import uid_of
from policyd.policy.finding_model import Finding
from policyd.policy.outcomes import Known
from policyd.policy.outline import Outline, Part, Span, outline_of, parts_of
from policyd.policy.universe import PRINCIPALS, RESOURCES, Universe

Constraint = pst.PrincipalOrResourceConstraint


@dataclass(frozen=True, slots=True)
class Examined:
    """A policy, where its parts stand (`column` is that of its first character), and the actions that it is for."""

    policy: Policy
    column: int
    outline: Outline
    parts: tuple[Part, ...]
    actions: frozenset[Uid]
    known: Known = field(repr=False)

    def finding(self, code: str, message: str, span: Span, remedy: str = "") -> Finding:
        """A finding at a place of this policy's text; one that goes on for lines is shown in its first."""
        before = self.policy.text[: span.start]
        line = before.count("\n")
        column = span.start - (before.rfind("\n") + 1) + (1 if line else self.column)
        width = len(self.policy.text[span.start : span.end].split("\n", 1)[0].rstrip())
        policy = self.policy
        return Finding(code, message, policy.file, policy.line + line, column, max(width, 1), remedy, policy.id)


def examine(policies: Sequence[Policy], schema: Schema, universe: Universe, texts: Mapping[str, str]) -> list[Examined]:
    """Prepare every policy; `texts` are the files that they are from."""
    lines = {name: text.split("\n") for name, text in texts.items() if name.endswith(".cedar")}
    concrete: dict[pst.ActionConstraint, frozenset[Uid]] = {}
    found = []
    for policy in policies:
        action = policy.tree.action
        if action not in concrete:
            concrete[action] = actions_of(action, schema)
        outline = outline_of(policy.text)
        found.append(
            Examined(
                policy,
                _column(policy, lines.get(policy.file, ())),
                outline,
                parts_of(policy.tree, outline),
                concrete[action],
                _known(policy.tree, concrete[action], schema, universe),
            )
        )
    return found


def actions_of(constraint: pst.ActionConstraint, schema: Schema) -> frozenset[Uid]:
    """Every action, groups too, that a scope covers."""
    match constraint:
        case pst.ActionEq(entity):
            return frozenset({uid_of(entity)})
        case pst.ActionIn(entities):
            named = {uid_of(one) for one in entities}
            return frozenset(uid for uid, above in schema.actions.items() if uid in named or named.intersection(above))
        case _:
            return frozenset(schema.actions)


def named_in(constraint: Constraint) -> Uid | None:
    """The entity that a part of a scope names, if it does."""
    match constraint:
        case pst.ScopeEq(entity) | pst.ScopeIn(entity) | pst.ScopeIsIn(_, entity) if isinstance(entity, pst.EntityUid):
            return uid_of(entity)
        case _:
            return None


def types_in(constraint: Constraint, of: frozenset[str]) -> frozenset[str]:
    """The types of entity that a part of a scope lets through."""
    match constraint:
        case pst.ScopeIs(entity_type) | pst.ScopeIsIn(entity_type, _):
            return of & {str(entity_type)}
        case pst.ScopeEq(entity) if isinstance(entity, pst.EntityUid):
            return of & {str(entity.type)}
        case pst.ScopeIn(entity) if isinstance(entity, pst.EntityUid) and str(entity.type) in of:
            return of & {str(entity.type)}
        case pst.ScopeIn(_):
            return of - {"Unauthenticated"}
        case _:
            return of


def _known(tree: pst.Template, actions: frozenset[Uid], schema: Schema, universe: Universe) -> Known:
    values: dict[tuple[str, ...], frozenset[str | int | Uid]] = {("action",): frozenset(actions)}
    parts: tuple[tuple[Literal["principal", "resource"], Constraint], ...]
    parts = (("principal", tree.principal), ("resource", tree.resource))
    for name, constraint in parts:
        uid = named_in(constraint)
        if uid is not None and isinstance(constraint, pst.ScopeEq):
            values[(name,)] = frozenset({uid})
    if Uid("Action", "other") not in actions:  # else the method can be any
        values["context", "request", "method"] = frozenset(uid.id for uid in actions)
    types = {"principal": types_in(tree.principal, PRINCIPALS), "resource": types_in(tree.resource, RESOURCES)}
    return Known(universe, schema, types, values)


def _column(policy: Policy, lines: Sequence[str]) -> int:
    line = lines[policy.line - 1] if policy.line <= len(lines) else ""
    return line.find(policy.text.split("\n", 1)[0]) + 1 or 1
