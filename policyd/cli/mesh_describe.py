"""`policyd mesh describe NAME`: what applies to a service or a workload, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd.analysis.describe import Description


def describe(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A service, an instance, a service account or its id.", show_default=False),
    ],
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Tell in words what applies to a service or a workload: ports, instances, rules, subsets, mutual TLS, tokens,
    policies, who may call it, and what it may call. Nothing has to run.
    """
    from policyd.analysis.describe import describe as told
    from policyd.cli import output
    from policyd.instance import folder
    from policyd.offline.loaded import load_folder
    from policyd.wording import clean

    live = load_folder(folder(directory), cases=False).live
    found = told(name, live, live.declaration.workloads.defaults.namespace)
    if as_json:
        headings = {heading: list(lines) for heading, lines in found.headings.items()}
        output.print_json({"kind": found.kind, "name": found.name, "headings": headings})
    else:
        output.show(*(clean(line) for line in lines(found)))


def lines(found: Description) -> Iterator[str]:
    """Return what to print: each heading with its lines beside it."""
    yield f"{found.kind} {found.name}"
    width = max(map(len, found.headings), default=0)
    for heading, said in found.headings.items():
        for at, line in enumerate(said):
            yield f"  {(heading if at == 0 else ''):<{width}}  {line}"
