"""`policyd log show ID`: one decision in full, and why it was so, by the policies of its time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from pathlib import Path

    from policyd.audit.read import Line
    from policyd.audit.record import Record
    from policyd.policy.authorize import Answer

MAX_FOUND: Final = 50
MIN_PREFIX: Final = 4


def show(
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A decision's id or its first digits, or a request's id.", show_default=False
        ),
    ],
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Show a decision in full: the record as the journal has it, and its explanation under the revision that decided.

    Several records, as of a request's hops, are listed. The record is read from the journal itself.
    """
    from policyd.cli import output
    from policyd.cli.journal import journal_of
    from policyd.cli.record_line import describe
    from policyd.instance import folder
    from policyd.offline.explained import Explainer

    found = found_records(directory, wanted)
    exact = [one for one in found if one.decision_id == wanted]
    chosen = exact if len(exact) == 1 else found
    if len(chosen) > 1:
        if as_json:
            output.print_json([_plain(one) for one in chosen])
            return
        output.show(f"{len(chosen)} records have this id; show one by its decision's id:", "")
        for one in chosen:
            output.console().print(f"{one.decision_id or '-':<34}", describe(one), soft_wrap=True)
        return
    line = _evidence(journal_of(directory), chosen[0])
    answer, why_not = Explainer(folder(directory)).explained(line.record)
    if as_json:
        output.print_json(_value(line.record, answer, why_not))
    else:
        output.show(*_lines(line.record, answer, why_not))


def found_records(directory: Path | None, wanted: str) -> list[Record]:
    """What the copy has under an id or its first digits; raises NotFound for nothing, UsageError for no id."""
    from policyd.audit.ask.questions import found_by_id
    from policyd.audit.ask.records import record_of
    from policyd.cli.journal_copy import ask
    from policyd.errors import NotFound, UsageError

    if len(wanted) < MIN_PREFIX:
        raise UsageError(f"`{wanted}` is too short for an id", remedy=f"write at least {MIN_PREFIX} digits of it")
    with ask(directory, [found_by_id(wanted, MAX_FOUND)]) as answers:
        found = [record_of(value) for value in next(answers).values()]
    if not found:
        remedy = "`policyd log query --json` shows the ids of the last ones"
        raise NotFound(f"the journal has no decision or request `{wanted[:80]}`", remedy=remedy)
    return found


def _evidence(journal: Path, copied: Record) -> Line:
    """The record where it stands; raises JournalError where it is gone since, or is another."""
    from policyd.audit.scan import lines_of
    from policyd.audit.segments import list_segments
    from policyd.cli.journal import say_broken
    from policyd.errors import JournalError

    segments = [one for one in list_segments(journal).get(copied.writer, ()) if one.first_seq <= copied.seq]
    for line in lines_of(segments[-1], say_broken) if segments else ():
        if line.record.seq == copied.seq and line.record.decision_id == copied.decision_id:
            return line
    message = f"record {copied.seq} of `{copied.writer}` is in the copy and no longer in the journal"
    raise JournalError(message, remedy="`policyd log verify` tells whether the journal is whole")


def _plain(record: Record) -> dict[str, Any]:
    import json

    from policyd.audit.record import encode

    value: dict[str, Any] = json.loads(encode(record))
    return {name: one for name, one in value.items() if one != ""}


def _value(record: Record, answer: Answer | None, why_not: str) -> dict[str, Any]:
    from policyd.cli.explain import as_json

    return {
        "record": _plain(record),
        "explanation": None if answer is None else as_json(answer),
        "not_explained": why_not,
    }


def _lines(record: Record, answer: Answer | None, why_not: str) -> Iterator[Any]:
    from policyd.cli import output
    from policyd.cli.explain import lines
    from policyd.wording import clean

    yield output.facts(list(_flat(_plain(record))))
    if answer is not None:
        yield ""
        yield f"explained under revision {record.revision[:12]}, which decided:"
        yield from lines(answer)
    elif why_not:
        yield ""
        yield clean(f"not explained: {why_not}")


def _flat(value: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Nested values by their paths."""
    import json

    for name, one in value.items():
        if isinstance(one, dict) and one and "__extn" not in one and "__entity" not in one:
            yield from _flat(one, f"{above}{name}.")
        elif isinstance(one, dict) and "__extn" in one:
            yield f"{above}{name}", str(one["__extn"].get("arg", ""))
        else:
            yield f"{above}{name}", one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)
