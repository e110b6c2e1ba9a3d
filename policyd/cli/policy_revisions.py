"""`policyd policy revisions`: what was in force, since when, and what changed with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from pathlib import Path

    from policyd.sources.revisions import Kept

MAX_NAMED: Final = 3  # files of one row


@dataclass(frozen=True, slots=True)
class _Row:
    """One kept folder; `changed` is None where that cannot be told any more."""

    kept: Kept
    changed: Sequence[tuple[str, str]] | None
    decides_alike: bool
    in_force: bool


def revisions(
    directory: Dir = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, max=1000, help="So many, the last first.")] = 20,
    as_json: Json = False,
) -> None:
    """List the revisions that were in force, the last one first: since when, how many policies, what changed.

    Each is kept as long as the journal keeps records. `policyd policy diff REVISION live` tells what they decide
    differently.
    """
    from policyd.cli.output import print_json, show, stderr
    from policyd.instance import folder
    from policyd.sources.revisions import history
    from policyd.state_paths import state_paths

    where = folder(directory)
    root = state_paths(where).revisions
    known = history(root)
    rows = _rows(root, known.kept, number, _in_force(where))
    if as_json:
        print_json({"revisions": [_value(row) for row in rows], "damaged": [str(path) for path in known.damaged]})
        return
    _show(rows, len(known.kept))
    if known.damaged:
        show(*(f"damaged: `{path}`" for path in known.damaged), stream=stderr())


def _show(rows: Sequence[_Row], count: int) -> None:
    from policyd.cli.output import show, table

    if not rows:
        show("none is kept: one is when the folder is served")
        return
    heads = ("REVISION", "IN FORCE FROM", "POLICIES", "WHAT CHANGED")
    show(table(heads, [(_name(row), _time(row.kept), str(row.kept.policies), _changes(row)) for row in rows]))
    if count > len(rows):
        show(f"and {count - len(rows)} older; `-n` shows more")


def _in_force(directory: Path) -> str:
    """The revision that decides now; "" where no server runs."""
    from policyd.errors import NotRunning, StateError
    from policyd.instance import server

    try:
        with server(directory) as client:
            return client.status().revision
    except (NotRunning, StateError):
        return ""


def _rows(root: Path, kept: Sequence[Kept], number: int, in_force: str) -> list[_Row]:
    """The last of them with what each changed, the newest first."""
    from policyd.errors import StateError
    from policyd.sources.revisions import changed, read

    def texts(one: Kept) -> dict[str, str] | None:
        try:
            return dict(read(root, one).texts)
        except StateError:
            return None

    rows: list[_Row] = []
    start = max(0, len(kept) - number)
    before = kept[start - 1] if start else None
    old = texts(before) if before else {}
    for one in kept[start:]:
        new = texts(one)
        differing = None if old is None or new is None or before is None else list(changed(old, new))
        alike = before is not None and before.revision == one.revision
        rows.append(_Row(one, differing, alike, one is kept[-1] and one.revision == in_force))
        before, old = one, new
    return rows[::-1]


def _name(row: _Row) -> str:
    from policyd.sources.revisions import SHORT

    return row.kept.revision[:SHORT] + (" (live)" if row.in_force else "")


def _time(kept: Kept) -> str:
    again = f", {len(kept.since)} times" if len(kept.since) > 1 else ""
    return f"{kept.last:%Y-%m-%d %H:%M:%S}Z{again}"


def _changes(row: _Row) -> str:
    if row.changed is None:
        return "-"
    named = [f"{file} {change}" for file, change in row.changed[:MAX_NAMED]]
    more = [f"{len(row.changed) - MAX_NAMED} more"] if len(row.changed) > MAX_NAMED else []
    return ", ".join((*named, *more)) + ("; decides alike" if row.decides_alike else "")


def _value(row: _Row) -> dict[str, Any]:
    changed = None if row.changed is None else [{"file": file, "change": change} for file, change in row.changed]
    return {
        "revision": row.kept.revision,
        "in_force": row.in_force,
        "since": [moment.isoformat() for moment in row.kept.since],
        "policies": row.kept.policies,
        "version": row.kept.version,
        "changed": changed,
        "decides_alike": row.decides_alike,
    }
