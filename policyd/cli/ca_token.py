"""`policyd ca token ...`: join tokens, with which agents become somebody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from policyd.cli.lazy import group
from policyd.cli.options import Dir, Json, Ttl

if TYPE_CHECKING:
    from policyd._pb import authority_pb2 as authority

app = group("Join tokens: with one, another machine's agent obtains its identity.")


@app.command()
def create(
    agent: Annotated[str, typer.Option("--agent", help="The name that the agent will have.")] = "agent",
    workload: Annotated[
        list[str] | None,
        typer.Option(
            "--workload",
            help="A workload that the agent may bear, by name or SPIFFE ID; repeatable. Without it: every one.",
            show_default=False,
        ),
    ] = None,
    ttl: Ttl = "",
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Make a join token: it works once, for ten minutes unless said otherwise.

    On the other machine run `policyd-proxy run --join TOKEN`. The token carries the server's address and the root's
    hash, so that even the first connection is verified. Keep it secret until it is used.
    """
    from policyd.cli import output
    from policyd.cli.values import seconds, workload_id
    from policyd.instance import folder, server
    from policyd.wording import moment

    with server(folder(directory)) as client:
        trust_domain, places = client.status().trust_domain, client.instances()
        ids = [str(workload_id(name, trust_domain, places)) for name in workload or ()]
        made = client.create_token(agent, ids, seconds(ttl))
    if as_json:
        output.print_json({"token": made.token, "agent": agent, "workloads": ids, "expires_at": made.expires_at})
        return
    print(made.token)
    output.show(f"for agent `{agent}`, works once, until {moment(made.expires_at)}", stream=output.stderr())


@app.command("list")
def list_tokens(directory: Dir = None, as_json: Json = False) -> None:
    """List the join tokens of the last days: for whom, and whether they were used."""
    import time

    from policyd.cli import output
    from policyd.cli.show import as_dict
    from policyd.instance import folder, server
    from policyd.wording import moment

    with server(folder(directory)) as client:
        made = client.tokens()
    if as_json:
        output.print_json([as_dict(one) for one in made])
        return
    now = int(time.time())
    rows = [
        (one.id, one.agent, " ".join(one.workloads) or "all", moment(one.expires_at), _token_state(one, now))
        for one in made
    ]
    output.show(output.table(("token", "agent", "workloads", "until", "state"), rows))


def _token_state(one: authority.Token, now: int) -> str:
    from policyd.wording import since

    if one.used_at:
        return f"used {since(one.used_at, now)} ago"
    return "over" if one.expires_at <= now else "unused"


@app.command("revoke")
def revoke_token(
    identifier: Annotated[str, typer.Argument(metavar="TOKEN", help="As `token list` shows it.", show_default=False)],
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Make an unused join token worthless. What was obtained with a used one is ended by `policyd ca revoke`."""
    from policyd.cli import output
    from policyd.instance import folder, server

    with server(folder(directory)) as client:
        agent = client.revoke_token(identifier)
    if as_json:
        output.print_json({"token": identifier, "agent": agent})
    else:
        output.show(f"the token `{identifier}` for the agent `{agent}` is worthless")
