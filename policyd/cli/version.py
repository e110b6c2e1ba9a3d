"""`policyd version`."""

from __future__ import annotations

from policyd.cli.lazy import leaf
from policyd.cli.options import Json
from policyd.cli.output import print_json

app = leaf()


@app.command()
def version(as_json: Json = False) -> None:
    """Show the version of policyd."""
    from importlib.metadata import version as version_of

    number = version_of("policyd")
    if as_json:
        print_json({"version": number})
    else:
        print(f"policyd {number}")
