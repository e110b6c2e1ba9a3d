"""`policyd check DIR`: every problem of a folder at once, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from policyd.cli.exits import Exit
from policyd.cli.lazy import leaf
from policyd.cli.options import AlsoDir, Folder, Json, Shadow, named

if TYPE_CHECKING:
    from policyd.errors import Problem
    from policyd.offline.loaded import Loaded
    from policyd.reload.live import Live

app = leaf()


@app.command()
def check(
    directory: Folder = None,
    shadow: Shadow = None,
    as_json: Json = False,
    also: AlsoDir = None,
) -> None:
    """Check everything that `policyd serve` would load from a folder, and print every problem with file and line.

    Settings, workloads, groups, routes, policies, those that are only tried too, and their test cases. Warnings tell
    what works but is probably not meant. Exit code 3 if there is a problem.
    """
    from policyd.cli import output
    from policyd.errors import InvalidInput
    from policyd.offline.loaded import load_folder

    where = named(directory, also)
    try:
        loaded = load_folder(where, shadow=shadow)
    except InvalidInput as error:
        if not as_json:
            raise
        output.print_json({"ok": False, "problems": values(error.problems), "warnings": []})
        raise typer.Exit(Exit.INVALID) from None
    if as_json:
        found = {"ok": True, "problems": [], "warnings": values(loaded.warnings)}
        output.print_json(found | counts(loaded.live))
    else:
        output.show(*lines(loaded))


def values(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Return problems as JSON has them."""
    return [
        {"code": p.code, "message": p.message, "file": p.file, "line": p.line, "column": p.column, "remedy": p.remedy}
        for p in problems
    ]


def counts(live: Live) -> dict[str, int]:
    """Return how much there is of each kind; shadow policies only where some are tried."""
    mesh, ruling = live.mesh, live.ruling
    return {
        "services": len(mesh.services),
        "workloads": len(mesh.workloads),
        "instances": len(mesh.instances),
        "policies": len(ruling.policy_set.policies),
        **({"shadow_policies": len(ruling.shadow.policy_set.policies)} if ruling.shadow else {}),
    }


def lines(loaded: Loaded) -> Sequence[Any]:
    """Return what to print of a folder without problems."""
    from policyd.wording import clean

    found = ", ".join(f"{count} {_noun(name, count)}" for name, count in counts(loaded.live).items())
    return [*(f"warning: {clean(str(warning))}" for warning in loaded.warnings), f"ok: {found}"]


def _noun(name: str, count: int) -> str:
    words = name.replace("_", " ")
    if count != 1:
        return words
    return f"{words.removesuffix('ies')}y" if words.endswith("policies") else words.removesuffix("s")
