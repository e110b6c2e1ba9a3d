"""`policyd mesh ...`: what a mesh folder may hold."""

from __future__ import annotations

from typing import Annotated

import typer

from policyd.cli.lazy import group
from policyd.cli.mesh_analyze import analyze
from policyd.cli.mesh_describe import describe
from policyd.cli.mesh_edit import apply, delete, get
from policyd.cli.options import Json

app = group("The mesh: what it may hold, what is wrong with it, what holds for whom.")
app.command()(apply)
app.command()(get)
app.command()(delete)
app.command()(describe)
app.command()(analyze)


@app.command()
def support(
    kinds: Annotated[list[str] | None, typer.Argument(metavar="[KIND]...", help="Kinds; none: all.")] = None,
    as_json: Json = False,
) -> None:
    """Print which fields of Istio's and Kubernetes' kinds are supported; all others are refused by name.

    `…` stands for any place in the kind.
    """
    from dataclasses import asdict

    from policyd.cli import output
    from policyd.errors import NotFound
    from policyd.mesh.istio.kinds import ELSEWHERE, KINDS
    from policyd.mesh.matching import did_you_mean
    from policyd.mesh.support import support as rows

    known = {*KINDS, *ELSEWHERE}
    for kind in kinds or ():
        if kind not in known:
            near = did_you_mean(kind, known, ()) or f"known are {', '.join(sorted(known))}"
            raise NotFound(f"`{kind[:80]}` is no kind", remedy=near)
    found = list(rows(kinds or ()))
    if as_json:
        output.print_json({"fields": [asdict(row) for row in found]})
        return
    shown = [
        (row.kind, row.place, "yes" if row.supported else "no", " ".join(row.fields) or "-", row.why) for row in found
    ]
    output.show(output.table(("KIND", "PLACE", "SUPPORTED", "FIELDS", "INSTEAD"), shown))
