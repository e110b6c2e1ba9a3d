"""`policyd log`: read the journal of decisions, and prove that it is whole.

Law: reads the owner's own files; neither a server nor a lock is needed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from policyd.cli.lazy import group
from policyd.cli.log_export import export
from policyd.cli.log_query import query, stats
from policyd.cli.log_show import show
from policyd.cli.log_sql import sql
from policyd.cli.log_verify import verify
from policyd.cli.options import Dir

if TYPE_CHECKING:
    from pathlib import Path

    from rich.text import Text

    from policyd.audit.match import Match
    from policyd.audit.read import Line
    from policyd.audit.record import Record
    from policyd.errors import BrokenRecord

POLL_SECONDS: Final = 0.2

UNREADABLE: Final = frozenset({"csr_sha256", "spiffe_id", "serial"})  # beside the names of who and what

app = group("Read the journal of decisions: who asked for what, what was decided, and why.")


app.command("query")(query)
app.command("show")(show)
app.command("stats")(stats)
app.command("sql")(sql)
app.command("export")(export)
app.command("verify")(verify)


@app.command()
def tail(
    directory: Dir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as they are, one JSON a line.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="So many of the past first.")] = 10,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on as records come.")] = True,
    decision: Annotated[
        Literal["allow", "deny", "error"] | None, typer.Option(help="Only these.", show_default=False)
    ] = None,
    principal: Annotated[
        str | None,
        typer.Option(help="Only of this caller: `productpage`, or a whole SPIFFE ID.", show_default=False),
    ] = None,
    resource: Annotated[
        str | None, typer.Option(help="Only on this service or host: `reviews`.", show_default=False)
    ] = None,
    kind: Annotated[
        Literal["decision", "issuance", "change", "operation"] | None,
        typer.Option(help="Only this kind of record.", show_default=False),
    ] = None,
) -> None:
    """Show the last records, and new ones as they come, until Ctrl-C.

    A line is: time, decision, caller -> service, request, deciding policy or reason, duration.
    """
    from policyd.audit.match import Match

    match = Match(decision, principal, resource, kind)
    _print(_records(journal_of(directory), match, lines, follow), as_json)


def journal_of(directory: Path | None) -> Path:
    """The folder of the journal; raises UsageError where there is none."""
    from policyd.errors import UsageError
    from policyd.instance import folder as find_folder
    from policyd.state_paths import state_paths

    folder = find_folder(directory)
    journal = state_paths(folder).journal
    if not journal.is_dir():
        raise UsageError(f"`{folder}` has no journal", remedy=f"start it with `policyd up {folder}`")
    return journal


def _records(journal: Path, match: Match, past: int, follow: bool) -> Iterator[Line]:
    """The last `past` records that match, in order, then what comes."""
    from policyd.audit.read import Follower, ends, newest

    positions = ends(journal)
    found = (line for line in newest(journal, positions, say_broken) if match(line.record))
    yield from reversed(list(islice(found, past)))
    follower = Follower(journal, positions, say_broken)
    while follow:
        lines = follower.poll()
        yield from (line for line in lines if match(line.record))
        if not lines:
            time.sleep(POLL_SECONDS)


def say_broken(error: BrokenRecord) -> None:
    from policyd.wording import clean

    sys.stderr.write(f"warning: {clean(str(error))}\n")


def _print(records: Iterable[Line], as_json: bool) -> None:
    from policyd.cli.output import console

    if as_json:
        for line in records:
            sys.stdout.buffer.write(line.raw)
            sys.stdout.buffer.flush()
        return
    out = console()
    for line in records:
        out.print(describe(line.record), soft_wrap=True)
        out.file.flush()


def describe(record: Record) -> Text:
    """One record in one line, for people; times are UTC."""
    from rich.text import Text

    from policyd.audit.match import short_name
    from policyd.cli.output import STYLES
    from policyd.wording import clean

    word = record.decision or "-"
    subject = _request(record) if record.kind == "decision" else _happening(record)
    parties = " -> ".join(filter(None, (short_name(record.principal), short_name(record.resource))))
    rest = "  ".join(filter(None, (parties, subject, describe_reason(record), _tried(record), _duration(record))))
    when = record.time.astimezone(UTC)
    line = Text(f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03d}Z  ")
    line.append(f"{word:<5}", style=STYLES.get(word, "yellow"))
    return line.append(clean(f"  {rest}").replace("\n", "�").rstrip())


def _request(record: Record) -> str:
    from policyd.audit.match import entity_id

    request = record.context.get("request")
    facts: dict[str, Any] = {**record.detail, **(request if isinstance(request, dict) else {})}
    method = str(facts.get("method") or entity_id(record.action))
    return f"{method} {facts['path']}" if facts.get("path") else method


def _happening(record: Record) -> str:
    """What a record that is no decision says: its own facts, as `name=value`, the hashes left to `--json`."""
    shown = {name: value for name, value in record.detail.items() if name not in UNREADABLE}
    if record.kind == "change":
        return f"change of {', '.join(shown.get('files', ())) or 'the folder'}"
    return " ".join([record.kind, *(f"{name}={_value(value)}" for name, value in shown.items())])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind", "…"))
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def describe_reason(record: Record) -> str:
    """Which policies decided, what failed, or that no policy allows it."""
    faults = "; ".join(f"{fault.source}: {fault.message}" for fault in record.errors)
    if faults or record.reasons:
        return " ".join(filter(None, (", ".join(record.reasons), faults)))
    return "no policy allows it" if record.kind == "decision" and record.decision == "deny" else ""


def _tried(record: Record) -> str:
    """What the shadow policies would have done, where that is something else."""
    from policyd.audit.record import change_of

    shadow = record.shadow
    if shadow is None or change_of(record) == "agree":
        return ""
    by = ", ".join(shadow.reasons) or "; ".join(f"{fault.source}: {fault.message}" for fault in shadow.errors)
    return f"(shadow: {' by '.join(filter(None, (shadow.decision, by)))})"


def _duration(record: Record) -> str:
    if record.decided_by:
        return f"by its {record.decided_by}"
    cached = " (cached)" if record.cached else ""
    return f"{record.duration_us / 1000:.1f} ms{cached}" if record.duration_us else ""
