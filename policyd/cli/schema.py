"""`policyd schema`: JSON Schemas of the folder's files, so that editors complete and check while one types."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policyd.cli.lazy import leaf
from policyd.cli.options import Json

if TYPE_CHECKING:
    from collections.abc import Iterator

app = leaf()


@app.command()
def schema(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="Such as `workloads.yaml`, `mesh`, `Gateway`.", show_default=False)
    ] = "",
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="DIR", help="Write them all there, Cedar's too.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the JSON Schema of a kind of file, so that editors complete it; without KIND, the kinds.

    `--write .vscode/policyd` writes all of them and says what to put into the editor's settings. In a file, the first
    line `# yaml-language-server: $schema=FILE` does for one. A schema knows fields, types and bounds; whether names
    are known and policies right is what `policyd check` tells.
    """
    from policyd.cli.output import print_json, show, table
    from policyd.errors import UsageError
    from policyd.policy.json_schema import file_kinds, schema_of

    if kind and write:
        raise UsageError("all schemas are written, not one", remedy="leave KIND out, or `--write`")
    if kind:
        print_json(schema_of(kind))
    elif write:
        _write(write, as_json)
    elif as_json:
        print_json([{"kind": one.name, "files": list(one.files), "title": one.title} for one in file_kinds()])
    else:
        rows = [(one.name, ", ".join(one.files), one.title) for one in file_kinds()]
        show(table(("KIND", "FILES", "WHAT IT HOLDS"), rows))


def _write(folder: Path, as_json: bool) -> None:
    from policyd.cli.output import print_json, show
    from policyd.errors import StateError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in sorted(texts().items()):
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        remedy = "name a folder that can be written"
        raise StateError(f"schemas cannot be written to `{folder}`: {reason}", remedy=remedy) from None
    if as_json:
        print_json({"folder": str(folder), "files": sorted(texts()), "settings": settings(folder)})
    else:
        show(*lines(folder))


def texts() -> dict[str, str]:
    """Return every schema, by the name of its file: those of YAML and JSON, and Cedar's own."""
    import json

    from policyd.policy.json_schema import schemas
    from policyd.sources.shipped import shipped_schema

    made = {name: json.dumps(one, indent=2, ensure_ascii=False) + "\n" for name, one in schemas().items()}
    return made | {f"{name}.cedarschema": shipped_schema(name) for name in ("mesh", "issuance", "operators")}


def settings(folder: Path) -> dict[str, Any]:
    """Return what an editor's settings say, as Visual Studio Code and its YAML extension have it."""
    from policyd.policy.json_schema import file_kinds

    where = str(folder) if folder.is_absolute() else f"./{folder.as_posix()}"
    files = {f"{where}/{one.name.removesuffix('.yaml')}.schema.json": list(one.files) for one in file_kinds()}
    yaml = {url: names for url, names in files.items() if names and names[0].endswith(".yaml")}
    json = [{"fileMatch": names, "url": url} for url, names in files.items() if names and names[0].endswith(".json")]
    return {"yaml.schemas": yaml, "json.schemas": json}


def lines(folder: Path) -> Iterator[str]:
    """Return what to print once they are written."""
    import json

    yield f"wrote {len(texts())} schemas to `{folder}`"
    yield "Visual Studio Code with its YAML extension: put this into .vscode/settings.json"
    yield json.dumps(settings(folder), indent=2)
    yield "any editor with yaml-language-server: start a file with this line"
    yield f"# yaml-language-server: $schema={folder / 'workloads.schema.json'}"
