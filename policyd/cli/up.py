"""`policyd up DIR`: the command; what it does is in bring_up.py."""

from __future__ import annotations

from typing import Annotated

import typer

from policyd.cli.lazy import leaf
from policyd.cli.options import AlsoDir, Folder, Json, Shadow, named, whole

app = leaf()


@app.command()
def up(
    directory: Folder = None,
    check: Annotated[
        bool, typer.Option("--check", help="Send the requests of checks.yaml, then end with 0, or 1 if one failed.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once everything is up; `policyd down` ends it.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="First remove DIR/.policyd: certificate authority, journal, ports.")
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="How many seconds the start may take.")] = 60,
    shadow: Shadow = None,
    console: Annotated[
        bool | None,
        typer.Option(
            "--console/--no-console",
            help="Also run the console, and print a link that opens it: as POLICYD_CONSOLE says, else yes.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    also: AlsoDir = None,
    ready: Annotated[int, typer.Option("--ready", hidden=True)] = -1,
) -> None:
    """Run the whole mesh of a folder on this machine: server, proxies, applications, console.

    It waits until all are healthy, prints where the gateways are and what became of the requests in checks.yaml, and
    stays until Ctrl-C, which ends everything. Without a terminal it ends after the table, and has no console. What dies
    is started again.
    """
    from policyd.cli import detached
    from policyd.errors import UsageError
    from policyd.instance import environment

    if detach and check:
        raise UsageError("`--detach` and `--check` exclude each other", remedy="leave one out")
    where, tried, known = named(directory, also), whole(shadow), environment()
    shown = known.console if console is None else console
    if detach:
        code = detached.start(
            where, fresh=fresh, timeout=timeout, as_json=as_json, shadow=tried, console=shown
        )  # fmt: skip
        raise typer.Exit(code)

    import asyncio
    import os

    from policyd.cli.bring_up import Options, bring_up

    options = Options(
        where, check=check, fresh=fresh, timeout=timeout, as_json=as_json, ready=ready, shadow=tried, console=shown
    )
    raise typer.Exit(asyncio.run(bring_up(options, known, dict(os.environ))))
