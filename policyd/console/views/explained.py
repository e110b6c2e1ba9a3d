"""Why a decision is as it is: its policies as they are written, with what mattered marked; and its request to try.

Law: pure but for the revision that is read; a decision that cannot be explained says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from policyd.audit.match import entity_id, short_name
from policyd.console.cedar_text import Line, lines_of, of_miss, of_reason
from policyd.errors import PolicydError
from policyd.policy.authorize import Answer
from policyd.policy.explain import explain
from policyd.policy.recorded import differs, recorded
from policyd.policy.request_form import ANONYMOUS

if TYPE_CHECKING:
    from policyd.audit.record import Record
    from policyd.console.desk import Desk


@dataclass(frozen=True, slots=True)
class Explained:
    """A record's explanation, or why there is none; policies as they are written, with what mattered marked."""

    answer: Answer | None = None
    why_not: str = ""
    near: tuple[tuple[Any, list[Line]], ...] = ()
    reasons: tuple[tuple[Any, list[Line]], ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)
    proposal: tuple[Line, ...] = ()


def explain_record(desk: Desk, record: Record) -> Explained:
    """Explain a record under the revision that decided it."""
    if record.kind != "decision":
        return Explained()
    if not record.revision:
        return Explained(why_not="no revision was in force")
    try:
        ruling = desk.source.live(record.revision, record).ruling
        again = recorded(record, ruling)
        found = explain(again.request, ruling)
    except PolicydError as error:
        return Explained(why_not=str(error))
    notes = (*again.notes, *filter(None, [differs(record, found.decision.word)]))
    return shown_answer(Answer(again.request, found, notes))


def shown_answer(answer: Answer) -> Explained:
    """An answer with its policies as they are written."""
    told = answer.explanation
    return Explained(
        answer,
        near=tuple((miss, of_miss(miss)) for miss in told.near),
        reasons=tuple((one, of_reason(one.policy, one.met)) for one in told.reasons),
        errors={error.policy: error.message for error in told.decision.errors},
        proposal=tuple(lines_of(told.proposal)) if told.proposal else (),
    )


def form_of(record: Record) -> str:
    """A recorded request as people write one; "" where it cannot be written so."""
    request = record.context.get("request")
    if not isinstance(request, Mapping) or not record.resource.startswith(("Service::", "Host::")):
        return ""
    caller = entity_id(record.principal) if record.principal.startswith("Workload::") else ANONYMOUS
    method, path = request.get("method") or entity_id(record.action), request.get("path") or "/"
    return f"{caller} {method} http://{short_name(record.resource)}{path}"


def headers_of(record: Record) -> str:
    request = record.context.get("request")
    headers = request.get("headers") if isinstance(request, Mapping) else None
    return "\n".join(f"{name}: {value}" for name, value in headers.items()) if isinstance(headers, Mapping) else ""


def first_file(explained: Explained) -> str | None:
    """Where to begin with the policies that are told of."""
    return next((one.policy.file for one, _ in (*explained.reasons, *explained.near)), None)
