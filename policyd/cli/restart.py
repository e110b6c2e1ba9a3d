"""`policyd restart`: new decision processes for old ones, without a failed request."""

from __future__ import annotations

from policyd.cli.lazy import leaf
from policyd.cli.options import Dir, Json

app = leaf()


@app.command()
def restart(directory: Dir = None, as_json: Json = False) -> None:
    """Replace the decision processes of a running server one at a time, without a failed request.

    Each successor takes checks before its predecessor ends. Use it after an upgrade, or where one misbehaves; policies
    and other files of the folder need no restart.
    """
    from policyd.cli import output
    from policyd.cli.show import as_dict
    from policyd.cli.status import deciders
    from policyd.instance import folder, server

    with server(folder(directory)) as client:
        reply = client.restart_deciders()
    if as_json:
        output.print_json(as_dict(reply))
    else:
        output.show(deciders(reply.deciders))
