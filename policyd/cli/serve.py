"""`policyd serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from policyd.cli.lazy import leaf
from policyd.cli.options import Dir, Json, Shadow, whole

Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        max=64,
        help="How many processes decide, whatever the settings say; by default one a core but one, at most four.",
    ),
]

Console = Annotated[
    bool, typer.Option("--console", help="Also run the console beside it, and print a link that opens it.")
]

app = leaf()


@app.command()
def serve(
    directory: Dir = None,
    shadow: Shadow = None,
    workers: Workers = None,
    console: Console = False,
    as_json: Json = False,
) -> None:
    """Run the control plane alone, until SIGTERM or Ctrl-C.

    It decides requests, issues certificates and configures proxies for the mesh that the folder declares. Changed
    files take effect at once; a bad change is refused and the last good one stays in force. `policyd up` starts it,
    the proxies and the applications in one go. Policies of a shadow folder, and those marked `@shadow`, are decided
    and recorded beside the active ones, and never enforced.

    Requests are decided in processes of their own, each on a port and a core of its own.
    """
    from contextlib import nullcontext

    from policyd.cli.console_beside import beside
    from policyd.instance import environment, folder
    from policyd.server.run import main

    tried = whole(shadow)
    where = folder(directory)
    with beside(where) if console else nullcontext():
        main(where, environment(), log_json=as_json, shadow=tried, deciders=workers)
