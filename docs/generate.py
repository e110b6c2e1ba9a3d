"""Writes docs/reference/ from the code: commands, metrics, error codes, record fields.

`python docs/generate.py` rewrites the pages; a test fails while one of them is not what this makes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from policyd import errors, names
from policyd.audit.record import Entry, Record
from policyd.cli.main import SUMMARY, root

FOLDER = Path(__file__).parent / "reference"
MADE = "<!-- made by docs/generate.py; change the code, then run it -->\n\n"


def pages() -> dict[str, str]:
    """The text of every page, by file name."""
    return {
        "commands.md": MADE + "\n".join(_commands()),
        "metrics.md": MADE + "\n".join(_metrics()),
        "errors.md": MADE + "\n".join(_errors()),
        "records.md": MADE + "\n".join(_records()),
    }


def _commands() -> Iterator[str]:
    import typer

    group = root()
    context = typer.Context(group, info_name="policyd")
    yield from ("# Commands", "", SUMMARY.strip(), "")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from _command(("policyd", name), command, context)


def _command(path: tuple[str, ...], command: Any, parent: Any) -> Iterator[str]:
    import typer

    context = typer.Context(command, info_name=path[-1], parent=parent)
    subcommands = getattr(command, "commands", None)
    if subcommands:
        yield from (f"## `{' '.join(path)}`", "", _prose(command.help), "")
        for name in command.list_commands(context):
            yield from _command((*path, name), command.get_command(context, name), context)
        return
    usage = " ".join((*path, *command.collect_usage_pieces(context))).replace("[OPTIONS] ", "")
    yield from (f"{'##' if len(path) == 2 else '###'} `{usage}`", "", _prose(command.help), "")
    rows = [row for row in (_parameter(one, context) for one in command.params) if row]
    if rows:
        yield from ("| option | what it does |", "|---|---|", *rows, "")


def _parameter(parameter: Any, context: Any) -> str:
    if getattr(parameter, "hidden", False):
        return ""
    record = parameter.get_help_record(context)
    if record is None:
        return ""
    name, text = (str(part).replace("|", "\\|") for part in record)
    return f"| `{name.strip()}` | {' '.join(text.split())} |"


def _prose(text: str | None) -> str:
    return inspect.cleandoc(text or "")


def _metrics() -> Iterator[str]:
    yield from ("# Metrics", "", "What `/metrics` of the server's HTTP port shows; counters end in `_total`.", "")
    yield from ("| name | labels | what it is |", "|---|---|---|")
    for name, (text, labels) in names.METRICS.items():
        yield f"| `{name}` | {', '.join(f'`{label}`' for label in labels) or '-'} | {text} |"
    yield ""


def _errors() -> Iterator[str]:
    yield from ("# Error codes", "", "The `code` of an error, in logs, in records and with `--json`.", "")
    yield from ("| code | what went wrong |", "|---|---|")
    found = {value for value in vars(errors).values() if inspect.isclass(value)}
    for error in sorted((e for e in found if issubclass(e, errors.PolicydError)), key=lambda e: e.code):
        yield f"| `{error.code}` | {' '.join(_prose(error.__doc__).split())} |"
    yield ""


def _records() -> Iterator[str]:
    yield from ("# Records", "", "A line of the journal, `DIR/.policyd/journal/*.jsonl`.", "")
    yield from (_prose(Entry.__doc__), "", _prose(Record.__doc__), "")
    yield from ("| field | default, which a line leaves out |", "|---|---|")
    for name in Record.__struct_fields__:
        default = dict(zip(reversed(Record.__struct_fields__), reversed(Record.__struct_defaults__), strict=False))
        value = default.get(name)
        shown = "" if value is None or repr(value) == "NODEFAULT" else f"`{value!r}`"
        yield f"| `{name}` | {shown} |"
    yield ""


def main() -> None:
    """Write every page."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
