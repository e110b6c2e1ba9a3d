"""`policyd why`: a line for why requests were refused, and in the next what would have let them pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from policyd.cli.lazy import leaf
from policyd.cli.moments import Since, Until
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from pathlib import Path

    from policyd.audit.record import Record
    from policyd.offline.explained import Explainer

LOOKED_AT: Final = 1_000  # refused requests, the newest ones
SHORT: Final = 8  # digits of an id that people are shown
_INDENT: Final = " " * (len("2026-11-23 12:00:00Z    ") + SHORT)

app = leaf()


@dataclass(frozen=True, slots=True)
class Reason:
    """Why requests were decided so: the newest of them, how many there were since `first`, and what would have let it
    pass (`would_allow`, "" where nothing simple would).
    """

    decision: str
    why: str
    would_allow: str
    decision_id: str
    time: datetime
    first: datetime
    times: int = 1


@app.command()
def why(
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A decision's id or its first digits, or a request's id.", show_default=False
        ),
    ] = "",
    directory: Dir = None,
    as_json: Json = False,
    since: Since = "",
    until: Until = "",
    principal: Annotated[
        str | None, typer.Option(help="Only of this caller: `productpage`, or a whole SPIFFE ID.", show_default=False)
    ] = None,
    resource: Annotated[
        str | None, typer.Option(help="Only on this service or host: `reviews`.", show_default=False)
    ] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, max=100, help="At most so many reasons.")] = 10,
) -> None:
    """Say why requests were refused, and what would have let them pass: one line each.

    Without ID the newest reasons, requests that were refused for the same one counted together. Example: `policyd why
    --since 1h --resource details`. With ID, as it is in an answer's header `x-policyd-decision-id`, that decision, or
    each of a request's. It is explained under the policies that decided; `policyd policy explain --decision ID` has the
    policies themselves, and what comes nearest.
    """
    from policyd.cli import output
    from policyd.cli.log_show import found_records
    from policyd.errors import NotFound, UsageError
    from policyd.instance import folder
    from policyd.offline.explained import Explainer

    if wanted and (since or until or principal or resource):
        raise UsageError("an id names what to explain", remedy="leave out the other options")
    if wanted:
        found = [one for one in reversed(found_records(directory, wanted)) if one.kind == "decision"]
        if not found:
            raise NotFound(f"`{wanted[:80]}` is no decision", remedy=f"`policyd log show {wanted[:80]}` shows it")
    else:
        found = _refused(directory, since, until, principal, resource)
    reasons = list(_reasons(found, Explainer(folder(directory)), together=not wanted))[:lines]
    if as_json:
        output.print_json([_value(one) for one in reasons])
    elif not reasons:
        output.show("nothing that matches was refused")
    else:
        output.show(*(line for one in reversed(reasons) for line in _shown(one)))


def _refused(
    directory: Path | None, since: str, until: str, principal: str | None, resource: str | None
) -> list[Record]:
    """The newest requests that were refused, denied or failed, the newest first."""
    from policyd.audit.ask.filters import Filter
    from policyd.audit.ask.questions import newest
    from policyd.audit.ask.records import record_of
    from policyd.cli.journal_copy import ask
    from policyd.cli.moments import here

    wanted = Filter(here(since, until), principal=principal, resource=resource, kind="decision")
    questions = [newest(replace(wanted, decision=word), LOOKED_AT) for word in ("deny", "error")]
    with ask(directory, questions) as answers:
        found = [record_of(value) for answer in answers for value in answer.values()]
    return sorted(found, key=lambda one: one.time, reverse=True)


def _reasons(records: Iterable[Record], explainer: Explainer, *, together: bool) -> Iterator[Reason]:
    """Why each was decided so; `together`: one for all that were decided for the same reason, in the order given."""
    found: dict[object, Reason] = {}
    explained: dict[object, tuple[str, str]] = {}
    for number, record in enumerate(records):
        alike = explainer.likeness(record)
        if alike not in explained:
            explained[alike] = _told(record, explainer)
        said, would = explained[alike]
        key = (record.decision, said, would) if together else number
        if (known := found.get(key)) is None:
            word = record.decision or ""
            found[key] = Reason(word, said, would, record.decision_id, record.time, record.time)
        else:
            found[key] = replace(known, first=record.time, times=known.times + 1)
    yield from found.values()


def _told(record: Record, explainer: Explainer) -> tuple[str, str]:
    """Why, and what would have allowed it. What failed was not decided by policies: its errors say why."""
    from policyd.cli.record_line import describe_reason

    if record.decision == "error":
        return describe_reason(record), ""
    answer, why_not = explainer.explained(record)
    if answer is None:
        return f"{describe_reason(record)} (not explained: {why_not})", ""
    return answer.explanation.why, answer.explanation.would


def _shown(reason: Reason) -> Iterator[str]:
    from policyd.cli.explain import WOULD
    from policyd.wording import clean

    often = f"  ({reason.times} times since {_when(reason.first)})" if reason.times > 1 else ""
    yield clean(f"{_when(reason.time)}  {reason.decision_id[:SHORT]:<{SHORT}}  {reason.decision}: {reason.why}{often}")
    if reason.would_allow:
        yield clean(f"{_INDENT}{WOULD}{reason.would_allow}")


def _when(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def _value(reason: Reason) -> dict[str, Any]:
    times = {name: getattr(reason, name).isoformat() for name in ("time", "first")}
    return {**asdict(reason), **times}
