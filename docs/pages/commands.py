"""commands.md: `policyd` from its command table, `policyd-proxy` from its argument parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from docs.pages.tables import code, prose, table
from policyd.cli.endings import ENDINGS, EVERY
from policyd.cli.exits import Exit
from policyd.cli.main import SUMMARY, root
from proxy.main import _parser as proxy_parser


def commands() -> Iterator[str]:
    """Every command, with its help, its options and its exit codes."""
    group = root()
    context = typer.Context(group, info_name="policyd")
    yield from ("# Commands", "", SUMMARY.strip(), "", *_exit_codes())
    for name in group.list_commands(context):
        yield from _command(("policyd", name), group.get_command(context, name), context)
    yield from _proxy(proxy_parser())


def _command(path: tuple[str, ...], command: Any, parent: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=path[-1], parent=parent)
    heading = "#" * len(path)
    if getattr(command, "commands", None):
        yield from (f"{heading} `{' '.join(path)}`", "", prose(command.help), "")
        for name in command.list_commands(context):
            yield from _command((*path, name), command.get_command(context, name), context)
        return
    usage = " ".join((*path, *command.collect_usage_pieces(context))).replace("{", "").replace("}", "")
    yield from (f"{heading} `{usage.replace(' [OPTIONS]', '')}`", "", prose(command.help), "")
    rows = (_option(one, context) for one in command.params)
    yield from table(("option", "what it does"), (row for row in rows if row))
    yield from _endings(ENDINGS.get(" ".join(path[1:]), {}))


def _exit_codes() -> Iterator[str]:
    yield from ("## Exit codes", "")
    yield from table(("exit code", "what it means"), ((code(one.value), one.meaning) for one in Exit))
    yield from ("Every command of `policyd` can end with these:", "", *_endings(EVERY))
    yield "What the others mean stands below the options of each command that answers yes or no, or that scripts ask."
    yield from ("No other command of `policyd` ends with 2.", "")


def _endings(endings: Mapping[Exit, str]) -> Iterator[str]:
    yield from table(("exit code", "when"), ((code(one.value), endings[one]) for one in sorted(endings)))


def _option(parameter: Any, context: Any) -> tuple[str, str] | None:
    if getattr(parameter, "hidden", False):
        return None
    record = parameter.get_help_record(context)
    return (code(str(record[0]).strip()), str(record[1])) if record else None


def _proxy(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from ("## `policyd-proxy`", "", prose(parser.description), "")
    commands = _subcommands(parser).items()
    for name, command in (pair for word, one in commands for pair in _leaves(word, one)):
        yield from (f"### `policyd-proxy {name}`", "", prose(command.description), "")
        options = (action for action in command._actions if not isinstance(action, argparse._HelpAction))
        yield from table(("option", "what it does"), ((_flag(each), each.help or "") for each in options))


def _leaves(name: str, command: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The command itself, or those below it."""
    below = _subcommands(command)
    yield from ((f"{name} {word}", one) for word, one in below.items()) if below else [(name, command)]


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def _flag(action: argparse.Action) -> str:
    metavar = f" {action.metavar or action.dest.upper()}" if action.nargs != 0 else ""
    return code(", ".join(action.option_strings) + metavar)
