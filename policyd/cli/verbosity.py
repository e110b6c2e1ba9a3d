"""`policyd verbosity`: how much a running server says of itself, changed without a restart."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from policyd.cli.lazy import leaf
from policyd.cli.options import Dir, Json

SETTINGS: Final = "settings"

app = leaf()


@app.command()
def verbosity(
    level: Annotated[str, typer.Argument(help="debug, info, warning or error; settings: as policyd.yaml says.")],
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Have all processes of a running server log from a level on, until it ends.

    The change is on record. `log.level` of policyd.yaml changes it for good, as soon as the file is written.
    """
    from policyd.cli import output
    from policyd.cli.instance import folder, server

    with server(folder(directory)) as client:
        now = client.set_log_level("" if level == SETTINGS else level)
    if as_json:
        output.print_json({"level": now})
    else:
        output.show(f"logged is from `{now}` on")
