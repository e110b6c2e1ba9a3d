"""`policyd log sql`: any question, as one SELECT statement."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Final

import typer

from policyd.cli.journal_copy import MEMORY, TIMEOUT, Memory, Timeout
from policyd.cli.options import Dir

SHOWN: Final = 1_000  # rows of a table for people


def sql(
    statement: Annotated[
        str, typer.Argument(metavar="SELECT", help="One statement over the table `records`.", show_default=False)
    ] = "",
    columns: Annotated[bool, typer.Option("--columns", help="Show the columns of `records` instead.")] = False,
    directory: Dir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows, one JSON a line.")] = False,
    memory: Memory = MEMORY,
    timeout: Timeout = TIMEOUT,
) -> None:
    """Ask the journal in SQL (DuckDB's): the table `records` has a row for each record; `--columns` tells its columns.

    Example: `policyd log sql "SELECT principal, count(*) FROM records WHERE decision = 'deny' GROUP BY ALL"`. The
    statement runs in a process of its own that can read the copy of the journal and no other file, can write nothing
    and reach no network.
    """
    import msgspec

    from policyd.audit.ask.child import Question
    from policyd.cli import output
    from policyd.cli.journal_copy import ask, bounds, cells
    from policyd.errors import UsageError

    if columns:
        _show_columns(as_json)
        return
    if not statement.strip():
        raise UsageError("there is no statement", remedy="write it behind `sql`, in quotes")
    with ask(directory, [Question(statement)], bounds(memory, timeout)) as answers:
        found = next(answers)
        if as_json:
            out = typer.get_binary_stream("stdout")
            for value in found.values():
                out.write(msgspec.json.encode(value) + b"\n")
            out.flush()
            return
        rows = [cells(row) for row in islice(found.rows, SHOWN)]
        output.show(output.table(found.columns, rows))
        if more := sum(1 for _ in found.rows):
            output.show(f"and {more:,} more; `--json` gives all")


def _show_columns(as_json: bool) -> None:
    from policyd.audit.ask.columns import COLUMNS
    from policyd.cli import output

    if as_json:
        output.print_json([{"name": one.name, "type": one.type, "meaning": one.meaning} for one in COLUMNS])
    else:
        output.show(output.table(("COLUMN", "TYPE", "MEANING"), [(one.name, one.type, one.meaning) for one in COLUMNS]))
