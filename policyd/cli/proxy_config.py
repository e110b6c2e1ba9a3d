"""`policyd proxy config KIND NAME`: what one Envoy holds, as it says itself."""

from __future__ import annotations

from typing import Annotated

import typer

from policyd.cli.options import Dir, Json
from policyd.xds.inspection.kind import Kind

Instance = Annotated[str, typer.Argument(metavar="NAME", help="An instance, as in workloads.yaml.", show_default=False)]


def config(
    kind: Annotated[
        Kind,
        typer.Argument(metavar="KIND", help="listeners, routes, clusters, endpoints or secrets.", show_default=False),
    ],
    name: Instance,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Show what the Envoy of an instance holds now, in its own words: it is asked, by way of its agent.

    Of secrets only names, serial numbers and validity are shown; a key never leaves the agent. `--json` prints all of
    it, with what Envoy masks masked.
    """
    from policyd.cli import output
    from policyd.instance import folder, server
    from policyd.xds.inspection.held import unpack
    from policyd.xds.inspection.rows import HEADERS, rows

    with server(folder(directory)) as client:
        held = unpack(client.inspect(name, kind.value).held)
    if as_json:
        output.print_json(held)
        return
    found = list(rows(kind, held))
    nothing = f"`{name}` holds no {kind.value}"
    output.show(output.table(HEADERS[kind.value], found) if found else nothing)
