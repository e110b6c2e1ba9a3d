"""`policyd check DIR`: every problem of a folder at once, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policyd.cli.exits import Exit
from policyd.cli.lazy import leaf
from policyd.cli.options import Json

if TYPE_CHECKING:
    from policyd.cedar.policies import PolicySet
    from policyd.cli.loaded import Loaded
    from policyd.errors import Problem
    from policyd.mesh.model import Mesh

app = leaf()


@app.command()
def check(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The mesh's folder.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Check everything that `policyd serve` would load from a folder, and print every problem with file and line.

    Settings, workloads, groups, routes, policies and their test cases. Warnings tell what works but is probably not
    meant. Exit code 3 if there is a problem.
    """
    from policyd.cli import output
    from policyd.cli.instance import existing
    from policyd.cli.loaded import load_folder
    from policyd.errors import InvalidInput

    where = existing(directory)
    try:
        loaded = load_folder(where)
    except InvalidInput as error:
        if not as_json:
            raise
        output.print_json({"ok": False, "problems": values(error.problems), "warnings": []})
        raise typer.Exit(Exit.INVALID) from None
    if as_json:
        found = {"ok": True, "problems": [], "warnings": values(loaded.warnings)}
        output.print_json(found | counts(loaded.live.mesh, loaded.live.ruling.policy_set))
    else:
        output.show(*lines(loaded))


def values(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Return problems as JSON has them."""
    return [
        {"code": p.code, "message": p.message, "file": p.file, "line": p.line, "column": p.column, "remedy": p.remedy}
        for p in problems
    ]


def counts(mesh: Mesh, policies: PolicySet) -> dict[str, int]:
    """Return how much there is of each kind."""
    return {
        "services": len(mesh.services),
        "workloads": len(mesh.workloads),
        "instances": len(mesh.instances),
        "policies": len(policies.policies),
    }


def lines(loaded: Loaded) -> Sequence[Any]:
    """Return what to print of a folder without problems."""
    from policyd.cli import output

    live = loaded.live
    found = ", ".join(
        f"{count} {name if count != 1 else _one(name)}"
        for name, count in counts(live.mesh, live.ruling.policy_set).items()
    )
    return [*(f"warning: {output.clean(str(warning))}" for warning in loaded.warnings), f"ok: {found}"]


def _one(name: str) -> str:
    return "policy" if name == "policies" else name.removesuffix("s")
