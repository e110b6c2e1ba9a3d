"""A question to the journal of a folder: its copy brought up to date, then asked; with progress where it takes long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from policyd.cli.values import size as parse_size

if TYPE_CHECKING:
    from policyd.audit.ask.child import Question
    from policyd.audit.ask.process import Bounds, Rows

MEMORY: Final = "1GiB"
TIMEOUT: Final = "60s"

Memory = Annotated[str, typer.Option("--memory", metavar="SIZE", help="At most so much memory for the answer.")]
Timeout = Annotated[str, typer.Option("--timeout", metavar="TIME", help="At most so long for the answer.")]


def bounds(memory: str, timeout: str) -> Bounds:
    """What people wrote as Bounds; raises UsageError."""
    from policyd.audit.ask.process import Bounds
    from policyd.cli.values import seconds

    return Bounds(parse_size(memory), seconds(timeout))


@contextmanager
def ask(
    directory: Path | None, questions: Sequence[Question], within: Bounds | None = None
) -> Iterator[Iterator[Rows]]:
    """Ask the journal of a folder; raises StateError where there is none, QuestionError, JournalError."""
    from policyd.audit.ask.copy import reading, refresh
    from policyd.audit.ask.process import Bounds, asked
    from policyd.cli.journal import journal_of, say_broken
    from policyd.cli.waiting import waiting
    from policyd.instance import folder as find_folder
    from policyd.state_paths import state_paths

    journal = journal_of(directory)
    copy = state_paths(find_folder(directory)).columns
    with waiting("copying the journal for questions") as tell:
        files = refresh(journal, copy, say_broken, tell)
    with reading(copy), asked(files, questions, within or Bounds()) as answers:
        yield answers


def cells(row: Sequence[Any]) -> list[str]:
    """A row for people."""
    return [_cell(value) for value in row]


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(_cell, value))
        case dict():
            return " ".join(f"{name}={_cell(one)}" for name, one in value.items())
        case _:
            return str(value)
