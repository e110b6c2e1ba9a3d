"""One rule of a policy: a scope and clauses, which hold exactly where Istio's rule matches.

Law: what the scope says is not said again; several sources or operations are alternatives, of one each field is a
conjunct of its own (`when`) or what must not be (`unless`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from policyd.policy.istio.attributes import Reading, condition_field, operation_fields, source_fields
from policyd.policy.istio.expression import FALSE, TRUE, Test, both, either, entity, negated
from policyd.policy.istio.field import Field, Place
from policyd.policy.istio.model import Rule

_WORKLOAD: Final = Test("principal is Workload")


@dataclass(frozen=True, slots=True)
class Clause:
    """`when` or `unless`, and its condition."""

    word: str
    test: Test


@dataclass(frozen=True, slots=True)
class Matching:
    """Where a rule matches: the scope's principal and action, and the clauses; None of them where it never does."""

    principal: str
    action: str
    clauses: tuple[Clause, ...]
    never: bool = False


EVERYONE: Final = Matching("principal", 'action in Action::"http"', ())


def matching(rule: Rule, reading: Reading, place: Place) -> Matching:
    """Translate a rule; what has no exact form is told to `place`."""
    sources = [source_fields(one.source, reading, place.at("from", at, "source")) for at, one in enumerate(rule.from_)]
    operations = [
        operation_fields(one.operation, reading, place.at("to", at, "operation")) for at, one in enumerate(rule.to)
    ]
    conditions = [condition_field(one, reading, place.at("when", at)) for at, one in enumerate(rule.when)]
    identified = _identified(conditions) or (bool(sources) and all(_identified(fields) for fields in sources))
    caller, methods = _caller(sources), _methods(operations)
    groups = [
        [list(_said(fields, caller=caller)) for fields in sources],
        [list(_said(fields, methods=methods)) for fields in operations],
        *([[one]] for one in conditions),
    ]
    clauses = tuple(clause for group in groups for clause in _clauses(group, identified))
    never = Clause("when", FALSE) in clauses or Clause("unless", TRUE) in clauses
    return Matching(_principal(caller, identified), _action(methods), clauses, never)


def _identified(fields: Sequence[Field]) -> bool:
    """Whether only a caller with an identity matches."""
    return any(one.identity and one.wanted is not None for one in fields)


def _caller(sources: Sequence[Sequence[Field]]) -> str:
    return next((one.caller for one in sources[0] if one.caller), "") if len(sources) == 1 else ""


def _methods(operations: Sequence[Sequence[Field]]) -> Sequence[str]:
    return next((one.methods for one in operations[0] if one.methods), ()) if len(operations) == 1 else ()


def _said(fields: Sequence[Field], caller: str = "", methods: Sequence[str] = ()) -> Iterator[Field]:
    """The fields without what the scope says."""
    for one in fields:
        in_scope = (caller and one.caller == caller) or (methods and one.methods == methods)
        yield Field(None, one.unwanted, one.identity) if in_scope else one


def _principal(caller: str, identified: bool) -> str:
    if caller:
        return f"principal == {entity('Workload', caller)}"
    return "principal is Workload" if identified else "principal"


def _action(methods: Sequence[str]) -> str:
    actions = [entity("Action", method) for method in methods]
    if len(actions) == 1:
        return f"action == {actions[0]}"
    return f"action in [{', '.join(actions)}]" if actions else 'action in Action::"http"'


def _clauses(alternatives: Sequence[Sequence[Field]], identified: bool) -> Iterator[Clause]:
    """The clauses of one `from`, one `to` or one condition; without alternatives there are none."""
    if len(alternatives) != 1:
        choices = [_alternative(fields, identified) for fields in alternatives]
        wanted, unwanted = either(choices) if choices else TRUE, FALSE
    else:
        wanted = both(_guarded(one, one.wanted, identified) for one in alternatives[0])
        unwanted = either(_guarded(one, one.unwanted, identified) for one in alternatives[0])
    if wanted != TRUE:
        yield Clause("when", wanted)
    if unwanted != FALSE:
        yield Clause("unless", unwanted)


def _alternative(fields: Sequence[Field], identified: bool) -> Test:
    """One of several; what it asks of the caller's identity it asks once."""
    first = _identified(fields) and not identified
    known = identified or first
    wanted = [_guarded(one, one.wanted, known) for one in fields]
    unwanted = either(_guarded(one, one.unwanted, known) for one in fields)
    return both([_WORKLOAD if first else TRUE, *wanted, negated(unwanted)])


def _guarded(field: Field, test: Test | None, identified: bool) -> Test:
    """A test of a Workload's attributes asks first whether there is one, unless that is known."""
    if test is None:
        return TRUE
    return both([_WORKLOAD, test]) if field.identity and not identified else test
