"""`policyd route FROM METHOD URL`: the way of one request, from the files alone."""

from __future__ import annotations

import typer

from policyd.cli.exits import Exit
from policyd.cli.lazy import leaf
from policyd.cli.options import Caller, Claim, Dir, Header, Json, Method, Url, User

app = leaf()


@app.command()
def route(
    caller: Caller,
    method: Method,
    url: Url,
    header: Header = None,
    user: User = "",
    claim: Claim = None,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Show which way one request goes, as the proxies of the folder would send it, and what policies say on the way.

    Which rule of which VirtualService, where it leads in which shares, how it is rewritten, how long is waited, what
    is tried again; and wherever policyd is asked, the decision. Nothing has to run. Example: `policyd route
    productpage GET http://reviews/reviews/0 -H 'end-user: jason' --dir examples/bookinfo`. Strangers come in at a
    gateway: `anonymous GET http://bookinfo.example.com/`. Exit code 0: it gets through, 2: a policy denies it on some
    way that it may take, 1: it leads nowhere.
    """
    from datetime import UTC, datetime

    from policyd.cli import output
    from policyd.cli.values import shown_user
    from policyd.instance import folder
    from policyd.offline.loaded import NOWHERE, load_folder
    from policyd.policy.header_form import headers
    from policyd.way import text
    from policyd.way.entry import way_of
    from policyd.way.follow import Follower
    from policyd.way.model import is_denied, is_lost

    given, shown = headers(header or ()), shown_user(user, claim or ())
    live = load_folder(folder(directory), cases=False).live
    follower = Follower(live, NOWHERE, datetime.now(UTC), shown)
    way = way_of(f"{caller} {method} {url}", follower, live.mesh, given)
    if as_json:
        output.print_json(text.as_json(way))
    else:
        output.show(*text.lines(way, live.mesh))
    raise typer.Exit(Exit.DENIED if is_denied(way) else Exit.ERROR if is_lost(way) else Exit.OK)
