"""`policyd ca revoke` and `revoked`: identities that nobody may have any more."""

from __future__ import annotations

from typing import Annotated

import typer

from policyd.cli.options import Dir, Json


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
