"""`policyd log tail`: the last records, and new ones as they come."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from policyd.cli.options import Dir

if TYPE_CHECKING:
    from pathlib import Path

    from policyd.audit.match import Match
    from policyd.audit.read import Line

POLL_SECONDS: Final = 0.2


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
    from policyd.cli.journal import journal_of

    match = Match(decision, principal, resource, kind)
    _print(_records(journal_of(directory), match, lines, follow), as_json)


def _records(journal: Path, match: Match, past: int, follow: bool) -> Iterator[Line]:
    """The last `past` records that match, in order, then what comes."""
    from policyd.audit.read import Follower, ends, newest
    from policyd.cli.journal import say_broken

    positions = ends(journal)
    found = (line for line in newest(journal, positions, say_broken) if match(line.record))
    yield from reversed(list(islice(found, past)))
    follower = Follower(journal, positions, say_broken)
    while follow:
        lines = follower.poll()
        yield from (line for line in lines if match(line.record))
        if not lines:
            time.sleep(POLL_SECONDS)


def _print(records: Iterable[Line], as_json: bool) -> None:
    from policyd.cli.output import console
    from policyd.cli.record_line import describe

    if as_json:
        for line in records:
            sys.stdout.buffer.write(line.raw)
            sys.stdout.buffer.flush()
        return
    out = console()
    for line in records:
        out.print(describe(line.record), soft_wrap=True)
        out.file.flush()
