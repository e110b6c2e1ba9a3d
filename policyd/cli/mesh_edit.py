"""`policyd mesh apply`, `get` and `delete`: resources by name, in a folder or through the server that runs for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd.amend import Amender
    from policyd.errors import Problem

STDIN: Final = Path("-")
WORDS: Final = {"created": "created", "changed": "configured", "unchanged": "unchanged", "removed": "deleted"}

File = Annotated[
    Path,
    typer.Option("--filename", "-f", help="A file of resources, a folder of such, or `-`.", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and tell, write nothing.")]


class Form(StrEnum):
    """How resources are printed."""

    TABLE = "table"
    YAML = "yaml"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Shown:
    """A resource, where it stands, and its values."""

    kind: str
    namespace: str
    name: str
    file: str
    line: int
    value: Any


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a resource."""

    kind: str
    namespace: str
    name: str
    file: str
    what: str


def apply(filename: File, directory: Dir = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Put resources into the mesh of a folder: each is changed where it stands, or gets a file of its own.

    The folder is checked as a whole before anything is written; where it would be refused, nothing is, and every
    problem is told. Comments and other resources of a file stay as they are. Where a server runs for the folder it
    makes the change, if the operators' policies let it, and keeps a record.
    """
    _done(_change(directory, texts_of(filename), (), dry_run), dry_run, as_json)


def delete(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="A kind, as in VirtualService or vs.", show_default=False)
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="`<name>` or `<namespace>/<name>`.", show_default=False)],
    directory: Dir = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take a resource out of the mesh of a folder, as `apply` puts one in."""
    _done(_change(directory, "", ((kind, name),), dry_run), dry_run, as_json)


def get(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="A kind, as in VirtualService or vs; none: all.")] = "",
    name: Annotated[str, typer.Argument(metavar="NAME", help="`<name>` or `<namespace>/<name>`; none: all.")] = "",
    form: Annotated[Form, typer.Option("--output", "-o", help="How to print.")] = Form.TABLE,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Show the resources of a mesh: those in force where a server runs for the folder, else those of its files."""
    from policyd.cli import output
    from policyd.errors import NotFound
    from policyd.instance import folder
    from policyd.wording import clean

    found = list(_resources(folder(directory), kind, name))
    if name and not found:
        raise NotFound(f"there is no {kind} `{name[:80]}`", remedy="`policyd mesh get` shows what there is")
    if as_json or form is Form.JSON:
        output.print_json({"resources": [one.value for one in found]})
    elif form is Form.YAML:
        import yaml

        texts = (yaml.safe_dump(one.value, sort_keys=False, allow_unicode=True) for one in found)
        output.show(*(clean(line) for line in "---\n".join(texts).splitlines()))
    else:
        rows = [(one.kind, one.namespace, one.name, f"{one.file}:{one.line}") for one in found]
        shown = output.table(("KIND", "NAMESPACE", "NAME", "WHERE"), rows) if rows else "no resource is declared"
        output.show(shown)
        told = list(_told(found))
        if told:
            header = ("RESOURCE", "AT", "CONDITION", "STATUS", "REASON", "MESSAGE")
            output.show("", output.table(header, told))


def _told(found: Iterable[Shown]) -> Iterator[tuple[str, ...]]:
    """What is told of resources of the Gateway API, a row a condition."""
    for one in found:
        called = f"{one.kind.partition('.')[0]} {one.namespace}/{one.name}"
        yield from ((called, *row) for row in _conditions(one.value.get("status", {})))


def _conditions(status: Any) -> Iterator[tuple[str, ...]]:
    """A row a condition: its own, those of its listeners, those at each of its parents."""
    groups = [("-", status.get("conditions", ()))]
    groups += [(f"listener {one['name']}", one["conditions"]) for one in status.get("listeners", ())]
    for key, parts in (("parentRef", status.get("parents", ())), ("ancestorRef", status.get("ancestors", ()))):
        groups += [(f"{one[key]['kind']} {one[key]['name']}", one["conditions"]) for one in parts]
    for where, conditions in groups:
        for one in conditions:
            yield where, one["type"], one["status"], one["reason"], one["message"] or "-"


# ---- a change


def texts_of(path: Path) -> str:
    """The documents of a file, of all files of a folder, or of standard input; raises UsageError, and InvalidInput for
    what is no text.
    """
    import sys

    from policyd.errors import InvalidInput, Problem, UsageError
    from policyd.mesh.edit import MAX_TEXT

    try:
        if path == STDIN:
            return sys.stdin.read(MAX_TEXT + 1)
        files = sorted(one for one in path.iterdir() if one.suffix in (".yaml", ".yml")) if path.is_dir() else [path]
        parts = []
        for file in files:
            with file.open(encoding="utf-8") as opened:
                parts.append(opened.read(MAX_TEXT + 1))
    except UnicodeDecodeError as error:
        message = f"the byte 0x{error.object[error.start]:02x} is no UTF-8"
        raise InvalidInput([Problem("text", message, str(path), remedy="save the file as UTF-8")]) from None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"`{path}` cannot be read: {why}", remedy="name a file that is there") from None
    text = "\n---\n".join(parts)
    if len(text.encode()) > MAX_TEXT:
        raise UsageError(f"`{path}` has more than {MAX_TEXT:,} bytes", remedy="apply it in parts")
    return text


def _change(directory: Path | None, apply: str, remove: Sequence[tuple[str, str]], dry_run: bool) -> list[Done]:
    """Have a change made by the server if one runs, else by ourselves; raises InvalidInput with all problems."""
    from policyd.errors import InvalidInput
    from policyd.instance import answers, folder

    where = folder(directory)
    if not answers(where):
        amender = _amender(where)
        made = amender.amended(apply, remove)
        if not dry_run:
            amender.write(made)
        return [Done(*_named(one.resource), one.file, one.what) for one in made.changes]
    reply = _ask(where, apply, remove, dry_run)
    problems = list(_problems(reply.refused))
    if problems:
        raise InvalidInput(problems)
    return [Done(one.kind, one.namespace, one.name, one.file, one.what) for one in reply.changes]


def _amender(directory: Path) -> Amender:
    from policyd.amend import Amender
    from policyd.offline.loaded import load_texts
    from policyd.reload.live import shipped_schemas
    from policyd.sources.shadow import FolderReader

    schemas = shipped_schemas()
    return Amender(directory, FolderReader(directory, None), lambda folder: load_texts(folder, schemas))


def _ask(directory: Path, apply: str, remove: Sequence[tuple[str, str]], dry_run: bool) -> Any:
    from policyd.instance import server

    with server(directory) as client:
        return client.change_mesh(apply, remove, dry_run=dry_run)


def _named(resource: Any) -> tuple[str, str, str]:
    return resource.kind, resource.namespace, resource.name


def _problems(refused: Iterable[Any]) -> Iterator[Problem]:
    from policyd.errors import Problem

    return (Problem(one.code, one.message, one.file, one.line, remedy=one.remedy) for one in refused)


def _done(done: Sequence[Done], dry_run: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from policyd.cli import output

    if as_json:
        output.print_json({"dry_run": dry_run, "changes": [asdict(one) for one in done]})
        return
    would = " (dry run)" if dry_run else ""
    lines = [f"{one.kind} {one.namespace}/{one.name} {WORDS[one.what]} in {one.file}{would}" for one in done]
    output.show(*(lines or ["there is nothing to do"]))


# ---- looking


def _resources(directory: Path, kind: str, name: str) -> Iterator[Shown]:
    from policyd.instance import answers, server
    from policyd.mesh.declare import declare
    from policyd.mesh.edit import kind_of
    from policyd.mesh.gateway_api.conditions import Status
    from policyd.sources.files import read_folder

    wanted = kind_of(kind) if kind else ""
    if answers(directory):
        with server(directory) as client:
            for one in client.resources(wanted, name):
                yield Shown(one.kind, one.namespace, one.name, one.file, one.line, json.loads(one.json))
        return
    files = read_folder(directory)
    declaration = declare(files.texts, credentials=files.credentials)
    for declared in declaration.resources:
        found = declared.resource
        if declared.stands and wanted in ("", found.kind_key) and name in ("", found.name, found.id):
            line = declared.document.find(("kind",)).line
            file = declared.document.file
            value = declaration.with_status(declared, Status.pending)
            yield Shown(found.kind_key, found.namespace, found.name, file, line, value)
