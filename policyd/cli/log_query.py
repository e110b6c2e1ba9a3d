"""`policyd log query` and `stats`: the questions that auditors have, without SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from policyd.cli.moments import Since, Until
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd.audit.ask.child import Question
    from policyd.audit.ask.filters import Filter
    from policyd.audit.ask.process import Rows

NEWEST: Final = 20
GROUPS: Final = 100

Principal = Annotated[
    str | None, typer.Option(help="Only of this caller: `productpage`, or a whole SPIFFE ID.", show_default=False)
]
Resource = Annotated[str | None, typer.Option(help="Only on this service or host: `reviews`.", show_default=False)]
Outcome = Annotated[Literal["allow", "deny", "error"] | None, typer.Option(help="Only these.", show_default=False)]
Kind = Annotated[
    Literal["decision", "issuance", "change", "operation"] | None,
    typer.Option(help="Only this kind of record.", show_default=False),
]
Method = Annotated[str | None, typer.Option(help="Only with this HTTP method.", show_default=False)]
Path = Annotated[str | None, typer.Option(help="Only this path; `*` stands for anything.", show_default=False)]
Policy = Annotated[str | None, typer.Option(help="Only determined by this policy.", show_default=False)]
Revision = Annotated[str | None, typer.Option(help="Only under this revision, or what begins so.", show_default=False)]
Status = Annotated[int | None, typer.Option(help="Only answered with this status.", show_default=False)]
Change = Annotated[
    Literal["agree", "would_deny", "would_allow", "skipped", "error"] | None,
    typer.Option(help="Only what the policies that are tried would change so.", show_default=False),
]
Errors = Annotated[bool, typer.Option("--errors", help="Only what failed, or where a policy failed.")]
By = Annotated[
    str | None,
    typer.Option(
        "--by", metavar="NAMES", help="Count by these, as in `principal` or `hour,decision`.", show_default=False
    ),
]
FirstSeen = Annotated[bool, typer.Option("--first-seen", help="Who called what for the first time, the newest first.")]
Slowest = Annotated[bool, typer.Option("--slowest", help="The decisions that took longest.")]
Lines = Annotated[
    int | None,
    typer.Option(
        "-n", "--lines", min=1, max=1_000_000, help="At most so many lines: 20, counted 100.", show_default=False
    ),
]


def query(
    directory: Dir = None, as_json: Json = False, since: Since = "", until: Until = "", decision: Outcome = None,
    principal: Principal = None, resource: Resource = None, kind: Kind = None, method: Method = None, path: Path = None,
    policy: Policy = None, revision: Revision = None, status: Status = None, change: Change = None,
    errors: Errors = False, by: By = None, first_seen: FirstSeen = False, slowest: Slowest = False, lines: Lines = None,
) -> None:  # fmt: skip
    """Ask the journal: the newest records that match, or counts, pairs that were never seen before, the slowest.

    Examples: `--decision deny --since 1h --by principal`; `--resource reviews --by principal` (who called it);
    `--first-seen --since yesterday`; `--errors --by error`; `--by revision,decision`. Answers come from a copy of the
    journal in columns, brought up to date first; it proves nothing, `policyd log verify` does.
    """
    from policyd.audit.ask.filters import Filter
    from policyd.cli.journal_copy import ask
    from policyd.cli.moments import here

    _check_one(by, first_seen, slowest)
    wanted = Filter(
        here(since, until), decision, principal, resource, kind or ("decision" if slowest else None), method, path,
        policy, revision, status=status, failed=True if errors else None, change=change,
    )  # fmt: skip
    show = _show_counts if by is not None or first_seen else _show_records
    with ask(directory, [_question(wanted, by, first_seen, slowest, lines)]) as answers:
        found = show(next(answers), as_json)
    if not found and not as_json:
        _show_nothing(wanted)


def _check_one(by: str | None, first_seen: bool, slowest: bool) -> None:
    from policyd.errors import UsageError

    if sum([by is not None, first_seen, slowest]) > 1:
        raise UsageError("`--by`, `--first-seen` and `--slowest` are three questions", remedy="ask one of them")


def _question(wanted: Filter, by: str | None, first_seen: bool, slowest: bool, lines: int | None) -> Question:
    """What is asked about the records that are wanted; raises UsageError for names that nothing is counted by."""
    from policyd.audit.ask import questions

    if by is not None:
        return questions.counted(wanted, names(by), lines or GROUPS)
    if first_seen:
        return questions.first_seen(wanted, lines or GROUPS)
    return (questions.slowest if slowest else questions.newest)(wanted, lines or NEWEST)


def stats(
    directory: Dir = None, as_json: Json = False, since: Since = "", until: Until = "", principal: Principal = None,
    resource: Resource = None,
) -> None:  # fmt: skip
    """Tell how much there is: records by kind and decision, who and what, how long decisions took."""
    from policyd.audit.ask.filters import Filter
    from policyd.audit.ask.questions import totals
    from policyd.cli import output
    from policyd.cli.journal import journal_of
    from policyd.cli.journal_copy import ask
    from policyd.cli.moments import here

    journal = journal_of(directory)
    with ask(directory, totals(Filter(here(since, until), principal=principal, resource=resource))) as answers:
        whole, kinds, took = (list(one.values()) for one in answers)
    files = [path.stat().st_size for path in journal.iterdir() if path.suffix in (".jsonl", ".sealed")]
    value = {**whole[0], "by_kind": kinds, "decisions": took[0], "files": len(files), "file_bytes": sum(files)}
    if as_json:
        output.print_json(value)
    else:
        output.show(*_stats_lines(value))


def names(by: str) -> tuple[str, ...]:
    """What to count by; raises UsageError."""
    from policyd.audit.ask.questions import BY
    from policyd.errors import UsageError

    found = tuple(dict.fromkeys(one.strip() for one in by.split(",")))
    for one in found:
        if one not in BY:
            raise UsageError(f"records are not counted by `{one[:80]}`", remedy=f"by {', '.join(BY)}")
    return found


def _show_nothing(wanted: Filter) -> None:
    """That there is nothing; of a name that may be misspelt, how to see what there is: no answer is a poor proof."""
    from policyd.cli import output

    named = {"principal": wanted.principal, "resource": wanted.resource, "policy": wanted.policy}
    by = ",".join(name for name, value in named.items() if value)
    output.show(f"no record matches; `policyd log query --by {by}` lists the names" if by else "no record matches")


def _show_records(found: Rows, as_json: bool) -> bool:
    """Print them; returns whether there are any."""
    import json
    import sys

    from policyd.audit.ask.records import mappings, record_of
    from policyd.cli import output
    from policyd.cli.record_line import describe

    if as_json:
        for value in found.values():
            shown = {name: one for name, one in {**value, **mappings(value)}.items() if one not in _EMPTY}
            sys.stdout.write(json.dumps(shown, ensure_ascii=False) + "\n")
        return True
    out, any_is = output.console(), False
    for value in found.values():
        out.print(describe(record_of(value)), soft_wrap=True)
        any_is = True
    return any_is


_EMPTY: Final[tuple[Any, ...]] = (None, "", [], {})


def _show_counts(found: Rows, as_json: bool) -> bool:
    """Print them; returns whether there are any."""
    from policyd.cli import output
    from policyd.cli.journal_copy import cells

    values = list(found.values())
    if as_json:
        output.print_json(values)
        return True
    if not values:
        return False
    headers = [name.upper().replace("_", " ") for name in found.columns]
    output.show(output.table(headers, [cells(_short(value)) for value in values]))
    return True


def _short(value: dict[str, Any]) -> list[Any]:
    """Callers and services as people call them, times to the second."""
    from policyd.audit.match import short_name

    shown = []
    for name, one in value.items():
        if name in ("principal", "resource", "action") and isinstance(one, str):
            shown.append(short_name(one))
        elif isinstance(one, str) and name in ("first_seen", "last_seen", "minute", "hour", "day"):
            shown.append(f"{one[:10]} {one[11:19]}Z")
        else:
            shown.append(one)
    return shown


def _stats_lines(value: dict[str, Any]) -> Iterator[Any]:
    from policyd.cli import output

    if not value["records"]:
        yield "no record matches"
        return
    took = value["decisions"]
    rows = [
        ("records", f"{value['records']:,} of {value['writers']} writers"),
        ("from", str(value["first"])),
        ("to", str(value["last"])),
        ("files", f"{value['files']}, {value['file_bytes']:,} bytes"),
        ("callers", str(value["principals"])),
        ("services", str(value["resources"])),
        ("revisions", str(value["revisions"])),
        ("masked", f"{value['masked']:,} records"),
    ]
    if took["decisions"]:
        micros: Sequence[str] = [f"{name} {took[f'{name}_us'] / 1000:.2f} ms" for name in ("p50", "p99", "max")]
        rows.append(("decisions", f"{took['decisions']:,}, {took['cached'] / took['decisions']:.0%} from memory"))
        rows.append(("time taken", ", ".join(micros)))
    yield output.facts(rows)
    yield ""
    kinds = [(one["kind"], one["decision"] or "-", f"{one['count']:,}") for one in value["by_kind"]]
    yield output.table(("KIND", "DECISION", "COUNT"), kinds)
