"""`policyd ca issue`: a certificate or a token by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyd.cli.options import Dir, Json, Ttl


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
    from policyd.cli.values import seconds, workload_id
    from policyd.instance import folder, server
    from policyd.wording import moment

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
    from policyd.cli.certificate import Target, facts, obtain
    from policyd.cli.values import seconds, workload_id
    from policyd.instance import folder, server

    target = Target(out, force)
    target.check()
    with server(folder(directory)) as client:
        trust_domain = client.status().trust_domain
        spiffe_id = workload_id(workload, trust_domain, client.instances())
        svid, bundle = obtain(client, spiffe_id, seconds(ttl), datetime.now(UTC))
    files = target.write(svid, bundle)
    told = facts(svid, files)
    if as_json:
        output.print_json(told)
    else:
        output.show(output.facts([(name.replace("_", " "), value) for name, value in told.items()]))
