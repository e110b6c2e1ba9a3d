"""`policyd ca revoke`, `revoked` and `crl`: identities that nobody may have, and certificates that nobody may show."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd.admin_client import AdminClient


def revoke(
    identity: Annotated[
        str,
        typer.Argument(metavar="[IDENTITY]", help="A workload's name or SPIFFE ID, or `agent/NAME`."),
    ] = "",
    serial: Annotated[
        str,
        typer.Option(
            "--serial",
            metavar="SERIAL",
            help="This one certificate, and no identity: see `ca list`.",
            show_default=False,
        ),
    ] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.", show_default=False)] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take the revocation back.")] = False,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Revoke an identity: nothing is issued or renewed for it, its requests are denied, nobody is led to it.

    It works at once, without the identity's help, and lasts until `--undo`. Certificates at hand still look good to
    programs that ask nobody, until they end, within the hour: lives are short for that. A revoked agent gets nothing.
    Connections between proxies that are open are told to end, and are cut off after a minute.

    With `--serial` one certificate is revoked, and its workload goes on with another: proxies look at lists of revoked
    certificates where policyd.yaml has `ca: {revokeSerials: true}`.
    """
    from policyd.cli import output
    from policyd.errors import UsageError
    from policyd.instance import folder, server

    if bool(identity) == bool(serial):
        raise UsageError("name an identity, or a certificate by --serial", remedy="`policyd ca revoke reviews`")
    with server(folder(directory)) as client:
        if serial:
            found, pending = _certificate(client, serial, reason, directory, undo=undo)
        else:
            found, pending = _identity(client, identity, reason, undo=undo)
    if as_json:
        output.print_json({**found, "revoked": not undo, "pending": pending})
    else:
        what = f"the certificate `{found['serial']}`" if serial else f"`{found['spiffe_id']}`"
        output.show(f"{what} is {'no longer revoked' if undo else 'revoked'}")
    if pending:
        output.show(f"warning: decisions do not know it yet, {pending}", stream=output.stderr())


def _identity(client: AdminClient, identity: str, reason: str, *, undo: bool) -> tuple[dict[str, str], str]:
    from policyd.cli.values import workload_id
    from policyd.spiffe import SpiffeId

    trust_domain = client.status().trust_domain
    kind, _, name = identity.partition("/")
    if kind == "agent":
        spiffe_id = SpiffeId.agent(trust_domain, name)
    else:
        spiffe_id = workload_id(identity, trust_domain, client.instances())
    pending = client.unrevoke(str(spiffe_id)) if undo else client.revoke(str(spiffe_id), reason)
    return {"spiffe_id": str(spiffe_id)}, pending


def _certificate(
    client: AdminClient, serial: str, reason: str, directory: Path | None, *, undo: bool
) -> tuple[dict[str, str], str]:
    """The journal knows whose it is, and when it ends by itself."""
    from policyd.cli.ca_ledger import recorded
    from policyd.errors import NotFound

    detail = recorded(serial, directory).detail
    if "serial" not in detail:
        raise NotFound(f"`{serial[:80]}` is a token, which ends within minutes", remedy="revoke its identity")
    number, spiffe_id = str(detail["serial"]), str(detail["spiffe_id"])
    ends = int(datetime.fromisoformat(str(detail["not_after"])).timestamp())
    if undo:
        pending = client.unrevoke(spiffe_id, serial=number)
    else:
        pending = client.revoke(spiffe_id, reason, serial=number, ends=ends)
    return {"serial": number, "spiffe_id": spiffe_id}, pending


def revoked(directory: Dir = None, as_json: Json = False) -> None:
    """List the identities that are revoked, and the certificates that are and have not ended yet."""
    from policyd.cli import output
    from policyd.cli.show import as_dict
    from policyd.instance import folder, server
    from policyd.wording import moment

    with server(folder(directory)) as client:
        found = client.revocations()
    if as_json:
        output.print_json([as_dict(one) for one in (*found.revoked, *found.serials)])
        return
    rows = [(one.spiffe_id, moment(one.since), one.reason or "-") for one in found.revoked]
    output.show(output.table(("spiffe id", "since", "reason"), rows))
    if found.serials:
        listed = [
            (one.serial, one.spiffe_id, moment(one.since), moment(one.ends), one.reason or "-") for one in found.serials
        ]
        output.show("", output.table(("certificate", "spiffe id", "since", "ends", "reason"), listed))


def crl(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; `-` prints it.", show_default=False)],
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Write the lists of revoked certificates to a file in PEM, for programs that are no proxies of the mesh.

    A list is good for a day, and another is made after half of it, or when a certificate is revoked.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from policyd.cli import output
    from policyd.cli.public_file import put
    from policyd.errors import NotFound
    from policyd.instance import folder, server

    with server(folder(directory)) as client:
        lists = [x509.load_der_x509_crl(one) for one in client.revocations().crls]
    if not lists:
        remedy = "write `ca: {revokeSerials: true}` in policyd.yaml"
        raise NotFound("this mesh publishes no list of revoked certificates", remedy=remedy)
    stream = put(file, b"".join(one.public_bytes(Encoding.PEM) for one in lists), as_json=as_json)
    numbers = {"lists": len(lists), "certificates": len(lists[0])}
    if as_json:
        output.print_json({"file": str(file), **numbers})
    else:
        output.show(f"wrote the lists of {numbers['certificates']} revoked certificates", stream=stream)
