"""The permits that come nearest to allowing a request, and for each exactly what keeps it from applying.

Law: nothing is guessed. The scope says who, what and where; what a condition came to is Cedar's own answer, part by
part. A permit for another service was not meant for this one, however near the rest is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from cedarpy import pst

from policyd.audit.match import short_name
from policyd.cedar.lexer import tokens_of
from policyd.cedar.model import Request, Uid
from policyd.cedar.policies import Policy
from policyd.cedar.schema import Schema
from policyd.cedar.scope import ScopeMatch, Scopes
from policyd.cedar.syntax_tree import uid_of
from policyd.policy.outline import Part, Span, outline_of, parts_of
from policyd.policy.seen import Seen, values_seen
from policyd.policy.whatif import Truth, evaluate

MAX_NEAR: Final = 5
MAX_LOOKED_AT: Final = 100  # permits whose conditions are asked about, nearest scopes first

NOT_REACHED: Final = "not reached"

_OTHER: Final = {"principal": "another caller", "action": "another method", "resource": "another service"}


@dataclass(frozen=True, slots=True)
class ScopeMiss:
    """One part of a scope that the request is not in: `wants` as the policy has it, `has` what the request is."""

    part: Literal["principal", "action", "resource"]
    wants: str
    has: str


@dataclass(frozen=True, slots=True)
class ClauseMiss:
    """A part of a `when` that is not true, or of an `unless` that is: `got` is Cedar's word for it, or NOT_REACHED."""

    kind: Literal["when", "unless"]
    text: str
    line: int
    got: str
    seen: tuple[Seen, ...]
    expr: pst.Expr = field(repr=False, compare=False)

    def __str__(self) -> str:
        """In one line."""
        seen = f" ({', '.join(map(str, self.seen))})" if self.seen else ""
        exception = "the exception " if self.kind == "unless" else ""
        return f"{exception}`{self.text}` is {self.got}{seen}"


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A permit that would have allowed the request but for parts of its `scope` and of its condition (`failed`)."""

    policy: Policy
    scope: tuple[ScopeMiss, ...]
    failed: tuple[ClauseMiss, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """The parts of the scope that the request is not in."""
        return tuple(miss.part for miss in self.scope)

    @property
    def distance(self) -> int:
        """How many things would have to be different."""
        return len(self.scope) + len(self.reached)

    @property
    def reached(self) -> tuple[ClauseMiss, ...]:
        """Of `failed` what does not only fail because something before it does."""
        return tuple(one for one in self.failed if one.got != NOT_REACHED)

    def __str__(self) -> str:
        """In one line."""
        reasons = []
        if self.scope:
            reasons.append(f"is for {' and '.join(_OTHER[part] for part in self.missing)}")
        if self.failed:
            covers = "" if self.scope else "covers this caller, method and service, but "
            reasons.append(covers + " and ".join(map(str, self.reached)))
        return f"`{self.policy.id}` ({self.policy.file}:{self.policy.line}) {', and '.join(reasons)}"


def near_misses(policies: Sequence[Policy], request: Request, schema: Schema) -> tuple[NearMiss, ...]:
    """The permits for this service that do not apply, nearest first, at most MAX_NEAR; raises DecisionError."""
    scopes = Scopes(request, schema)
    matches = [(one, scopes.match(one.tree)) for one in policies if one.effect == "permit"]
    here = [(one, match) for one, match in matches if match.resource]
    here.sort(key=lambda pair: (-sum(pair[1]), pair[0].id))
    looked_at = here[:MAX_LOOKED_AT]
    failed = conditions_failed([one for one, _ in looked_at], request, schema)
    found = [
        NearMiss(one, tuple(_scope_misses(one, match, request)), misses)
        for (one, match), misses in zip(looked_at, failed, strict=True)
    ]
    found = [miss for miss in found if miss.distance]
    return tuple(sorted(found, key=lambda miss: (miss.distance, len(miss.scope), miss.policy.id))[:MAX_NEAR])


def conditions_failed(policies: Sequence[Policy], request: Request, schema: Schema) -> list[tuple[ClauseMiss, ...]]:
    """For each policy what of its condition a request does not meet, () where it meets it; raises DecisionError."""
    parts = [conditions_of(one) for one in policies]
    truths = iter(evaluate([part.expr for some in parts for part in some], request, schema))
    return [
        tuple(_misses(policy, [(part, next(truths)) for part in some], request))
        for policy, some in zip(policies, parts, strict=True)
    ]


def conditions_met(policy: Policy, request: Request) -> tuple[ClauseMiss, ...]:
    """What of the condition of a policy that applies was met, with what it saw."""
    return tuple(_told(policy, part, part.wanted, request) for part in conditions_of(policy))


def conditions_of(policy: Policy) -> tuple[Part, ...]:
    """The parts of the condition of a policy."""
    return parts_of(policy.tree, outline_of(policy.text))


def written(policy: Policy, span: Span) -> str:
    """The text there on one line, without comments."""
    tokens = list(tokens_of(policy.text[span.start : span.end]))
    words = [tokens[0].text]
    for before, token in itertools.pairwise(tokens):
        words += [" ", token.text] if token.start > before.end else [token.text]
    return "".join(words)


def _misses(policy: Policy, answers: Sequence[tuple[Part, Truth]], request: Request) -> Iterator[ClauseMiss]:
    """In order; once a part failed, an error behind it may come of just that, and Cedar never gets there."""
    failed = False
    for part, truth in answers:
        if truth is not part.wanted:
            told = _told(policy, part, truth, request)
            yield replace(told, got=NOT_REACHED) if failed and isinstance(truth, str) else told
            failed = True


def _told(policy: Policy, part: Part, truth: Truth, request: Request) -> ClauseMiss:
    got = f"an error, {truth}" if isinstance(truth, str) else str(truth).lower()
    line = policy.line + policy.text.count("\n", 0, part.span.start)
    return ClauseMiss(part.kind, written(policy, part.span), line, got, values_seen(part.expr, request), part.expr)


def _scope_misses(policy: Policy, match: ScopeMatch, request: Request) -> Iterator[ScopeMiss]:
    tree = policy.tree
    if not match.principal:
        yield ScopeMiss("principal", scope_text(tree.principal), _with_groups(request.principal, request))
    if not match.action:
        yield ScopeMiss("action", scope_text(tree.action), request.action.id)
    if not match.resource:
        yield ScopeMiss("resource", scope_text(tree.resource), _with_groups(request.resource, request))


def _with_groups(uid: Uid, request: Request) -> str:
    """Who or what it is, and the groups that it is in."""
    entity = next((one for one in request.entities if one.uid == uid), None)
    groups = [str(parent) for parent in entity.parents if parent.type == "Group"] if entity else []
    return f"{short_name(str(uid))}, in {', '.join(groups)}" if groups else short_name(str(uid))


def scope_text(constraint: pst.PrincipalOrResourceConstraint | pst.ActionConstraint) -> str:
    """A constraint as policies write it, without the variable; "" for any."""
    match constraint:
        case pst.ScopeEq(entity) | pst.ActionEq(entity):
            return f"== {_named(entity)}"
        case pst.ScopeIn(entity):
            return f"in {_named(entity)}"
        case pst.ScopeIs(entity_type):
            return f"is {entity_type}"
        case pst.ScopeIsIn(entity_type, entity):
            return f"is {entity_type} in {_named(entity)}"
        case pst.ActionIn(entities):
            names = [str(uid_of(one)) for one in entities]
            return f"in {names[0]}" if len(names) == 1 else f"in [{', '.join(names)}]"
        case _:
            return ""


def _named(entity: pst.EntityOrSlot) -> str:
    return str(uid_of(entity)) if isinstance(entity, pst.EntityUid) else "?"
