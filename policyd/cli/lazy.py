"""A command group that knows its commands by a table and imports one only when it runs.

Law: `--help` of the group imports no command, so it answers at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter

SENTENCE: Final = 300  # characters


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: the module that has its `app`, and its line in the help."""

    module: str
    help: str


class LazyGroup(TyperGroup):
    """The commands of `table`, by name, in the order of the table."""

    def __init__(self, table: Mapping[str, Entry], **attributes: Any) -> None:
        super().__init__(rich_markup_mode=None, no_args_is_help=True, **attributes)
        self.table = table

    def list_commands(self, ctx: Context) -> list[str]:
        """Return the names, in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Import the command `cmd_name`; None where the table has no such."""
        entry = self.table.get(cmd_name)
        return None if entry is None else load(cmd_name, entry)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the table's own help lines."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.table.items()])


class WholeGroup(TyperGroup):
    """A group whose help has the first sentence about each command, whole."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write a line or more for each, in the order in which they were added."""
        rows = [(name, one.get_short_help_str(SENTENCE)) for name, one in self.commands.items() if not one.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def load(name: str, entry: Entry) -> Command:
    """Import the module of `entry` and return its command."""
    command = get_command(importlib.import_module(entry.module).app)
    command.name = name
    return command


def leaf() -> typer.Typer:
    """Return the app of a module that has one command."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def group(summary: str) -> typer.Typer:
    """Return the app of a module that has several commands, or will have."""
    app = typer.Typer(cls=WholeGroup, add_completion=False, rich_markup_mode=None, no_args_is_help=True, help=summary)
    app.callback()(lambda: None)  # makes it a group even with one command
    return app
