"""`policyd ca ...`: the groups and commands, and what the authority is now: `status` and `show`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policyd.cli import ca_bundle, ca_entry, ca_federation, ca_rotate, ca_token
from policyd.cli.ca_archive import export, import_
from policyd.cli.ca_init import init
from policyd.cli.ca_inspect import inspect
from policyd.cli.ca_issue import issue
from policyd.cli.ca_ledger import listed, log, show_record
from policyd.cli.ca_obtain import obtain
from policyd.cli.ca_revoke import crl, revoke, revoked
from policyd.cli.ca_sign import sign
from policyd.cli.ca_verify import verify
from policyd.cli.lazy import group
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb
    from policyd._pb import authority_pb2 as authority

app = group("The certificate authority: join tokens, certificates, entries of processes, bundles.")
app.add_typer(ca_token.app, name="token")
app.add_typer(ca_entry.app, name="entry")
app.add_typer(ca_bundle.app, name="bundle")
app.add_typer(ca_federation.app, name="federation")
app.add_typer(ca_rotate.app, name="rotate")
app.command("init")(init)
app.command("export")(export)
app.command("import")(import_)
app.command("list")(listed)
app.command("log")(log)
app.command("inspect")(inspect)
app.command("verify")(verify)
app.command("sign")(sign)
app.command("revoke")(revoke)
app.command("revoked")(revoked)
app.command("crl")(crl)
app.command("issue")(issue)
app.command("obtain")(obtain)


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
    from policyd.cli.show import as_dict
    from policyd.cli.workload_socket import place, required
    from policyd.instance import folder, server

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
    from policyd.wording import moment, short, span

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
    from policyd.cli.show import as_dict
    from policyd.instance import folder, server

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
    from policyd.wording import moment, span

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
