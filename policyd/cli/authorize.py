"""`policyd authorize FROM METHOD URL`: one request decided from the files alone."""

from __future__ import annotations

import typer

from policyd.cli.exits import Exit
from policyd.cli.lazy import leaf
from policyd.cli.options import Caller, Claim, Dir, Header, Json, Method, Shadow, Url, User

app = leaf()


@app.command()
def authorize(
    caller: Caller,
    method: Method,
    url: Url,
    header: Header = None,
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
    from policyd.cli.values import shown_user
    from policyd.instance import folder
    from policyd.offline.loaded import load_folder
    from policyd.policy.authorize import authorize as decide
    from policyd.policy.header_form import headers

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
