"""`policyd ca ...`: join tokens, certificates and tokens by hand, and what there is to trust."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policyd.cli import ca_bundle, ca_entry, ca_federation, ca_rotate
from policyd.cli.ca_init import init
from policyd.cli.ca_inspect import inspect
from policyd.cli.ca_ledger import listed, log, show_record
from policyd.cli.ca_sign import sign
from policyd.cli.ca_verify import verify
from policyd.cli.lazy import group
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb
    from policyd._pb import authority_pb2 as authority

app = group("The certificate authority: join tokens, certificates, entries of processes, bundles.")
token = group("Join tokens: with one, another machine's agent obtains its identity.")
app.add_typer(token, name="token")
app.add_typer(ca_entry.app, name="entry")
app.add_typer(ca_bundle.app, name="bundle")
app.add_typer(ca_federation.app, name="federation")
app.add_typer(ca_rotate.app, name="rotate")
app.command("init")(init)
app.command("list")(listed)
app.command("log")(log)
app.command("inspect")(inspect)
app.command("verify")(verify)
app.command("sign")(sign)

Ttl = Annotated[str, typer.Option("--ttl", help="How long it lives, as in `10m` or `1h`.", show_default=False)]


@token.command()
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
    from policyd.cli.instance import folder, server
    from policyd.cli.show import moment
    from policyd.cli.values import seconds, workload_id

    with server(folder(directory)) as client:
        trust_domain, places = client.status().trust_domain, client.instances()
        ids = [str(workload_id(name, trust_domain, places)) for name in workload or ()]
        made = client.create_token(agent, ids, seconds(ttl))
    if as_json:
        output.print_json({"token": made.token, "agent": agent, "workloads": ids, "expires_at": made.expires_at})
        return
    print(made.token)
    output.show(f"for agent `{agent}`, works once, until {moment(made.expires_at)}", stream=output.stderr())


@token.command("list")
def list_tokens(directory: Dir = None, as_json: Json = False) -> None:
    """List the join tokens of the last days: for whom, and whether they were used."""
    import time

    from policyd.cli import output
    from policyd.cli.instance import folder, server
    from policyd.cli.show import as_dict, moment

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
    from policyd.cli.show import since

    if one.used_at:
        return f"used {since(one.used_at, now)} ago"
    return "over" if one.expires_at <= now else "unused"


@token.command("revoke")
def revoke_token(
    identifier: Annotated[str, typer.Argument(metavar="TOKEN", help="As `token list` shows it.", show_default=False)],
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Make an unused join token worthless. What was obtained with a used one is ended by `policyd ca revoke`."""
    from policyd.cli import output
    from policyd.cli.instance import folder, server

    with server(folder(directory)) as client:
        agent = client.revoke_token(identifier)
    if as_json:
        output.print_json({"token": identifier, "agent": agent})
    else:
        output.show(f"the token `{identifier}` for the agent `{agent}` is worthless")


@app.command()
def revoke(
    identity: Annotated[
        str,
        typer.Argument(metavar="IDENTITY", help="A workload's name or SPIFFE ID, or `agent/NAME`.", show_default=False),
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.", show_default=False)] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take the revocation back.")] = False,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Revoke an identity: nothing is issued or renewed for it, its requests are denied, nobody is led to it.

    It works at once, without the identity's help, and lasts until `--undo`. Certificates at hand still look good to
    programs that ask nobody, until they end, within the hour: lives are short for that. A revoked agent gets nothing.
    """
    from policyd.cli import output
    from policyd.cli.instance import folder, server
    from policyd.cli.values import workload_id
    from policyd.spiffe import SpiffeId

    with server(folder(directory)) as client:
        trust_domain = client.status().trust_domain
        kind, _, name = identity.partition("/")
        if kind == "agent":
            spiffe_id = SpiffeId.agent(trust_domain, name)
        else:
            spiffe_id = workload_id(identity, trust_domain, client.instances())
        pending = client.unrevoke(str(spiffe_id)) if undo else client.revoke(str(spiffe_id), reason)
    if as_json:
        output.print_json({"spiffe_id": str(spiffe_id), "revoked": not undo, "pending": pending})
    else:
        output.show(f"`{spiffe_id}` is {'no longer revoked' if undo else 'revoked'}")
    if pending:
        output.show(f"warning: decisions do not know it yet, {pending}", stream=output.stderr())


@app.command()
def revoked(directory: Dir = None, as_json: Json = False) -> None:
    """List the identities that are revoked."""
    from policyd.cli import output
    from policyd.cli.instance import folder, server
    from policyd.cli.show import as_dict, moment

    with server(folder(directory)) as client:
        found = client.revoked()
    if as_json:
        output.print_json([as_dict(one) for one in found])
    else:
        rows = [(one.spiffe_id, moment(one.since), one.reason or "-") for one in found]
        output.show(output.table(("spiffe id", "since", "reason"), rows))


@app.command()
def issue(
    workload: Annotated[
        str, typer.Argument(metavar="WORKLOAD", help="A workload's name or SPIFFE ID.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The folder for key.pem, certificate.pem and roots.pem.", show_default=False),
    ] = None,
    audience: Annotated[
        list[str] | None,
        typer.Option(
            "--audience",
            help="Print a token (JWT-SVID) for this audience instead; repeatable.",
            show_default=False,
        ),
    ] = None,
    ttl: Ttl = "",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there already.")] = False,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Issue a certificate by hand, for a program that speaks mutual TLS itself, or a token for one that shows tokens.

    The key is made here, readable by you alone, and never leaves this machine. A token lives five minutes unless
    said otherwise; whoever has it is that workload until then, to its audience.
    """
    from policyd.errors import UsageError

    if (out is None) == (not audience):
        raise UsageError("either a certificate or a token", remedy="give --out FOLDER, or --audience NAME")
    if out is None:
        _issue_token(workload, audience or [], ttl, directory, as_json=as_json)
    else:
        _issue_certificate(workload, out, ttl, directory, force=force, as_json=as_json)


def _issue_token(workload: str, audiences: list[str], ttl: str, directory: Path | None, *, as_json: bool) -> None:
    from policyd.cli import output
    from policyd.cli.instance import folder, server
    from policyd.cli.show import moment
    from policyd.cli.values import seconds, workload_id

    with server(folder(directory)) as client:
        spiffe_id = str(workload_id(workload, client.status().trust_domain, client.instances()))
        made = client.issue_jwt(spiffe_id, audiences, seconds(ttl))
    if as_json:
        output.print_json(
            {
                "token": made.token,
                "spiffe_id": spiffe_id,
                "audiences": audiences,
                "expires_at": made.expires_at,
                "jti": made.jti,
            }
        )
        return
    print(made.token)
    output.show(f"`{spiffe_id}`, until {moment(made.expires_at)}, on record as {made.jti}", stream=output.stderr())


def _issue_certificate(
    workload: str, out: Path, ttl: str, directory: Path | None, *, force: bool, as_json: bool
) -> None:
    from datetime import UTC, datetime

    from policyd.cli import output
    from policyd.cli.certificate import Target, obtain
    from policyd.cli.instance import folder, server
    from policyd.cli.values import seconds, workload_id

    target = Target(out, force)
    target.check()
    with server(folder(directory)) as client:
        trust_domain = client.status().trust_domain
        spiffe_id = workload_id(workload, trust_domain, client.instances())
        svid, bundle = obtain(client, spiffe_id, seconds(ttl), datetime.now(UTC))
    files = target.write(svid, bundle)
    facts = {
        "spiffe_id": str(svid.id),
        "serial": f"{svid.serial:032x}",
        "not_after": svid.not_after.isoformat(),
        "key": str(files.key),
        "certificate": str(files.certificate),
        "roots": str(files.roots),
    }
    if as_json:
        output.print_json(facts)
    else:
        output.show(output.facts([(name.replace("_", " "), value) for name, value in facts.items()]))


@app.command()
def status(
    directory: Dir = None,
    socket: Annotated[
        bool, typer.Option("--socket", help="Print where the Workload API is, for SPIFFE_ENDPOINT_SOCKET.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show all of the authority that can end, and when: roots, what signs, keys of tokens."""
    import time

    from policyd.cli import output
    from policyd.cli.instance import folder, server
    from policyd.cli.show import as_dict
    from policyd.cli.workload_socket import place, required

    here = folder(directory)
    if socket:
        print(f"unix://{required(here)}")
        return
    with server(here) as client:
        reply = client.ca_status()
    if as_json:
        output.print_json(as_dict(reply))
    else:
        output.show(*elements(reply, place(here), int(time.time())))
        for warning in reply.warnings:
            output.show(f"warning: {warning}", stream=output.stderr())


def elements(reply: authority.CaStatusReply, socket: Path | None, now: int) -> Sequence[Any]:
    """Return what to print, at `now` in seconds since the epoch."""
    from policyd.cli import output
    from policyd.cli.show import moment, short, span

    facts = [
        ("trust domain", reply.trust_domain),
        ("bundle", f"sequence {reply.sequence}"),
        ("issued", f"{reply.issued} certificates and tokens"),
        ("entries", str(reply.entries)),
        ("workload API", f"unix://{socket}" if socket else "-"),
    ]
    rows = [
        (one.name, short(one.id), one.state, moment(one.begins), moment(one.ends), f"in {span(one.ends - now)}")
        for one in reply.elements
    ]
    return [output.facts(facts), "", output.table(("element", "id", "state", "begins", "ends", ""), rows)]


@app.command()
def show(
    serial: Annotated[
        str, typer.Argument(metavar="[SERIAL]", help="A certificate's serial number, or a token's jti.")
    ] = "",
    directory: Dir = None,
    pem: Annotated[bool, typer.Option("--pem", help="Print the root alone, in PEM, for another program.")] = False,
    as_json: Json = False,
) -> None:
    """Show the certificate authority, or with SERIAL what the journal has of one certificate or token.

    A serial number is read as people and openssl write it; its first digits are enough.
    """
    import time

    from policyd.cli import output
    from policyd.cli.instance import folder, server
    from policyd.cli.show import as_dict

    if serial:
        show_record(serial, directory, as_json=as_json)
        return
    with server(folder(directory)) as client:
        reply = client.show_ca()
    if as_json:
        output.print_json(as_dict(reply))
    elif pem:
        print(reply.root_pem, end="")
    else:
        output.show(*lines(reply, int(time.time())))


def lines(reply: pb.ShowCaReply, now: int) -> Sequence[Any]:
    """Return what to print, at `now` in seconds since the epoch."""
    from policyd.cli import output
    from policyd.cli.show import moment, span

    def end(at: int) -> str:
        return f"until {moment(at)} (in {span(at - now)})" if at > now else f"expired {moment(at)}"

    return [
        output.facts(
            [
                ("trust domain", reply.trust_domain),
                ("root", end(reply.root_not_after)),
                ("root SHA-256", reply.root_sha256),
                ("intermediate", end(reply.intermediate_not_after)),
                ("issued", f"{reply.issued} certificates"),
            ]
        )
    ]
