"""`policyd verbosity`: how much what runs says of itself, changed without a restart."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from policyd.cli.lazy import leaf
from policyd.cli.options import Dir, Json

SETTINGS: Final = "settings"
_LEVEL: Final = (
    "debug, info, warning or error, of Envoys trace, critical or off, too; settings: as policyd.yaml says, "
    "or as the agent was started."
)

app = leaf()


@app.command()
def verbosity(
    level: Annotated[str, typer.Argument(metavar="LEVEL", help=_LEVEL)],
    agent: Annotated[str, typer.Option(help="Of this agent, not of the server.", metavar="NAME")] = "",
    envoys: Annotated[bool, typer.Option("--envoys", help="Of the Envoys that the agent runs.")] = False,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Have all processes of a running server, or an agent, or its Envoys log from a level on, until the server ends.

    The change is on record. `log.level` of policyd.yaml changes the server's for good, as soon as the file is written.
    """
    from policyd.cli import output
    from policyd.errors import UsageError
    from policyd.instance import folder, server

    if envoys and not agent:
        raise UsageError("`--envoys` is about those of an agent", remedy="add `--agent NAME`")
    with server(folder(directory)) as client:
        now = client.set_log_level("" if level == SETTINGS else level, agent, envoys=envoys)
    if as_json:
        output.print_json({"level": now or SETTINGS})
    else:
        output.show(f"logged is from `{now}` on" if now else "logged is as the agent was started")
