"""`policyd authorize FROM METHOD URL`: one request decided from the files alone."""

from __future__ import annotations

from typing import Annotated

import typer

from policyd.cli.exits import Exit
from policyd.cli.lazy import leaf
from policyd.cli.options import Claim, Dir, Json, Shadow, User

app = leaf()


@app.command()
def authorize(
    caller: Annotated[
        str,
        typer.Argument(
            metavar="FROM",
            help="Who asks: an instance, a service, a service account, a SPIFFE ID, or `anonymous`.",
            show_default=False,
        ),
    ],
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The HTTP method, as in GET.", show_default=False)],
    url: Annotated[str, typer.Argument(metavar="URL", help="As in http://reviews:9080/reviews/0.", show_default=False)],
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", help="A header, as in `end-user: jason`; repeatable.", show_default=False),
    ] = None,
    user: User = "",
    claim: Claim = None,
    directory: Dir = None,
    shadow: Shadow = None,
    as_json: Json = False,
) -> None:
    """Decide one request from the folder's files, as the server would, and say why. Nothing has to run.

    Example: `policyd authorize reviews GET http://details/details/0 --dir examples/bookinfo`. What policies that are
    only tried would say is told besides. Exit code 0 is allow, 2 is deny.
    """
    from datetime import UTC, datetime

    from policyd.cli import explain, output
    from policyd.cli.instance import folder
    from policyd.cli.loaded import load_folder
    from policyd.cli.values import headers, shown_user
    from policyd.policy.authorize import authorize as decide

    given, shown = headers(header or ()), shown_user(user, claim or ())
    ruling = load_folder(folder(directory), cases=False, shadow=shadow).live.ruling
    asked, now = f"{caller} {method} {url}", datetime.now(UTC)
    found = decide(asked, ruling, now, given, shown)
    tried = decide(asked, ruling.shadow, now, given, shown) if ruling.shadow else None
    if as_json:
        output.print_json(explain.all_json(found, tried))
    else:
        output.show(*explain.all_lines(found, tried))
    raise typer.Exit(Exit.OK if found.decision.allowed else Exit.DENIED)
