"""`policyd policy shadow-report`: what would have changed, had the shadow policies been in force."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from policyd.cli.exits import Exit
from policyd.cli.moments import Since
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from pathlib import Path

    from policyd.audit.record import Record
    from policyd.audit.scan import Span
    from policyd.policy.shadow_report import Example, Report, Row

MAX_ROWS: Final = 100  # of one sort
MAX_NAMES: Final = 4  # policies in one line

Revision = Annotated[
    str,
    typer.Option(
        "--revision",
        metavar="HASH",
        help="Only under the shadow revision that begins so, or the `latest`.",
        show_default=False,
    ),
]


def shadow_report(directory: Dir = None, since: Since = "", revision: Revision = "", as_json: Json = False) -> None:
    """Sum up what would change if the shadow policies were in force, from the decisions recorded with both answers.

    For each caller, method and service: how many requests would be denied or allowed, since when, by which policies,
    and one of them, which `policyd policy explain --decision ID` explains. Exit code 0 if every answer would be the
    same, 2 if one would change or the shadow policies failed, 1 if no decision was compared.
    """
    from policyd.cli import output
    from policyd.cli.journal import journal_of
    from policyd.cli.moments import here
    from policyd.policy.shadow_report import LATEST, latest, report

    span = here(since, "")
    records = _records(journal_of(directory), span)
    wanted = latest(records()) if revision == LATEST else revision
    found = report(records(), wanted)
    if as_json:
        output.print_json(value(found, span))
    else:
        output.show(*lines(found))
    if not found.compared:
        raise typer.Exit(Exit.ERROR)
    raise typer.Exit(Exit.DENIED if found.changed or found.failed else Exit.OK)


def _records(journal: Path, span: Span) -> Callable[[], Iterator[Record]]:
    """What reads the records of a span, each time anew."""
    from policyd.audit.scan import scan
    from policyd.cli.journal import say_broken

    def read() -> Iterator[Record]:
        return (line.record for line in scan(journal, span).lines(say_broken))

    return read


def value(found: Report, span: Span) -> dict[str, Any]:
    """Return the report as JSON has it."""
    return {
        "since": _json(span.since) if span.since else None,
        "compared": found.compared,
        **{str(change): count for change, count in found.counts.items()},
        "not_asked": found.alone,
        "revisions": [_plain(asdict(one)) for one in found.revisions],
        "changes": [_plain(asdict(one)) for one in found.rows],
        "failing": [_plain(asdict(one)) for one in found.failing],
    }


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _json(one) if isinstance(one, datetime) else one for name, one in fields.items()}


def _json(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def lines(found: Report) -> Iterator[Any]:
    """Return what to print: how many, under which shadow policies, then what would change, then what failed."""
    from policyd.wording import clean

    if not found.compared:
        yield "no decision has both answers" + (f", of {found.alone} the shadow was not asked" if found.alone else "")
        yield "  mark policies `@shadow`, or name a folder with `--shadow`, and wait for traffic"
    else:
        yield from _summary(found)
    for change, title in (("would_deny", "would be denied:"), ("would_allow", "would be allowed:")):
        rows = [row for row in found.rows if row.change == change]
        if rows:
            yield from ("", title)
            yield from (clean(line) for row in rows[:MAX_ROWS] for line in _row(row))
            if len(rows) > MAX_ROWS:
                yield f"and {len(rows) - MAX_ROWS} more; `--json` has all"
    if found.failing:
        yield from ("", "no answer, or not by all policies:")
        for one in found.failing:
            yield clean(f"  {one.count:,} x {one.source}: {one.message}")
            yield clean(f"      {_example(one.example)}")


def _summary(found: Report) -> Iterator[str]:
    counts = found.counts
    first, last = min(one.first for one in found.revisions), max(one.last for one in found.revisions)
    yield f"{found.changed:,} of {found.compared:,} decisions would change, {_when(first)} to {_when(last)}"
    parts = [f"{counts['agree']:,} the same", f"{counts['would_deny']:,} would be denied"]
    parts.append(f"{counts['would_allow']:,} would be allowed")
    yield f"  {', '.join(parts)}"
    if found.skipped:
        yield f"  {found.skipped:,} more were not compared, so that the enforced answer was in time"
    if found.failed:
        yield f"  {found.failed:,} more have no shadow answer, see below"
    yield from _revisions(found)


def _revisions(found: Report) -> Iterator[str]:
    from policyd.wording import short

    *earlier, last = found.revisions
    yield f"  under shadow revision {short(last.revision)}"
    if earlier:
        told = ", ".join(f"{short(one.revision)} until {_when(one.last)}" for one in earlier[-MAX_NAMES:])
        count = sum(one.count for one in earlier)
        yield f"  and {count:,} of them under earlier ones ({told}); `--revision latest` leaves them out"


def _row(row: Row) -> Iterator[str]:
    from policyd.audit.match import entity_id, short_name

    who, what, where = short_name(row.principal), entity_id(row.action), short_name(row.resource)
    now, then = ("allow", "deny") if row.change == "would_deny" else ("deny", "allow")
    yield f"  {row.count:,} x {who} {what} {where}: {now}{_by(row.active)} -> {then}{_by(row.shadow)}"
    yield f"      {_when(row.first)} to {_when(row.last)}; {_example(row.example)}"


def _by(policies: Sequence[str]) -> str:
    more = f", {len(policies) - MAX_NAMES} more" if len(policies) > MAX_NAMES else ""
    return f" ({', '.join(one or 'nothing permits it' for one in policies[:MAX_NAMES])}{more})"


def _example(example: Example) -> str:
    request = f"{example.method} {example.path}".strip() or "a request"
    return f"for example {request}, decision {example.decision_id}"


def _when(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
