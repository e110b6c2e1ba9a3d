"""What commands print: tables for people, JSON for programs, errors on standard error.

Law: a terminal gets colour unless NO_COLOR is set (rich looks); anything else gets plain text, whole, however wide.
No control character of others' text reaches the terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

from policyd.error_text import error_lines, error_value
from policyd.errors import PolicydError
from policyd.wording import clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_WIDTH: Final = 1000  # columns where no terminal limits them
STYLES: Final[Mapping[str, str]] = {
    "allow": "green", "ok": "green", "up": "green", "synced": "green", "yes": "green", "pass": "green",
    "deny": "red", "fail": "bold red", "NACK": "bold red", "no": "red", "gave up": "bold red",
    "awaited": "yellow", "restarting": "yellow", "stale": "yellow",
}  # fmt: skip
Row = Sequence[str]


def print_json(value: Any, stream: TextIO | None = None) -> None:
    """Print `value` as one JSON document."""
    json.dump(value, stream or sys.stdout, indent=2, ensure_ascii=False)
    (stream or sys.stdout).write("\n")


def console(stream: TextIO | None = None) -> Console:
    """Return rich's console for `stream`: it finds out about terminals, colours and NO_COLOR by itself."""
    from rich.console import Console

    stream = stream or sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def table(headers: Row, rows: Sequence[Row]) -> Table:
    """Return rows under headers; words of STYLES get their colour."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        made.add_column(header, overflow="fold")
    for row in rows:
        made.add_row(*(Text(clean(cell), style=STYLES.get(cell, "")) for cell in row))
    return made


def facts(pairs: Sequence[tuple[str, str]]) -> Table:
    """Return names and values, a line each."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(name, Text(clean(value), style=STYLES.get(value, "")))
    return made


def show(*parts: Any, stream: TextIO | None = None) -> None:
    """Print tables and texts, a line or more each; a text is never read as markup.

    One that holds an address is left to the terminal to wrap, which opens it whole.
    """
    where = console(stream)
    with where.capture() as captured:
        for part in parts:
            if isinstance(part, str):
                where.print(part, markup=False, soft_wrap="://" in part)
            else:
                where.print(part)
    text = captured.get()
    if not where.is_terminal:
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    where.file.write(text)
    where.file.flush()


def stderr() -> TextIO:
    """Return standard error, for remarks beside the answer."""
    return sys.stderr


def show_error(error: PolicydError, as_json: bool = False) -> None:
    """Print an error on standard error: every problem of an invalid input, else the message and its remedy."""
    if as_json:
        print_json(error_value(error), sys.stderr)
        return
    sys.stderr.write("\n".join(error_lines(error)) + "\n")
