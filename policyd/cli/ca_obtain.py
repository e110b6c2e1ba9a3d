"""`policyd ca obtain`: a certificate for a program without an agent, for evidence of what it is, once or kept fresh.

Law: what is secret (the pod's token, the machine's key) is read from a file, and the token is shown only over a
connection that chains to the roots which were named.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policyd.cli.options import Json

if TYPE_CHECKING:
    from policyd.cli.proving import Asking, Evidence

MAX_ROOTS = 1 << 20


def obtain(
    identity: Annotated[str, typer.Argument(metavar="SPIFFE-ID", help="Whose it is.", show_default=False)],
    server: Annotated[str, typer.Option("--server", help="policyd's attestation address, HOST:PORT.")],
    roots: Annotated[Path, typer.Option("--roots", help="PEM: the mesh's roots, of `policyd ca bundle export --pem`.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for key.pem, certificate.pem and roots.pem.")],
    token_file: Annotated[
        Path | None, typer.Option("--kubernetes-token", help="The file of a pod's projected token.", show_default=False)
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", help="PEM: a machine's certificate, and what signed it.", show_default=False),
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="PEM: that certificate's key.", show_default=False)] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Stay, and renew at half of life; SIGHUP renews at once, SIGTERM ends.")
    ] = False,
    command: Annotated[
        str,
        typer.Option(
            "--run",
            metavar="COMMAND",
            help="With --keep: run this after each renewal, as `nginx -s reload`; by no shell.",
            show_default=False,
        ),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there already.")] = False,
    as_json: Json = False,
) -> None:
    """Obtain a workload's certificate without an agent, with a pod's token, or a certificate that the machine has.

    Which token or certificate leads to which workload is said by entries (`policyd ca entry create`), and policies
    decide. The new key is made here. The certificate lives an hour: run it again at half of that, with `--force`, or
    let it stay with `--keep`: then the three files are replaced together, a start goes on with what is there, and what
    happens is printed as one JSON object a line.
    """
    import asyncio
    import shlex

    from policyd.cli.proving import Asking
    from policyd.errors import UsageError
    from policyd.spiffe import SpiffeId
    from proxy.bootstrap import Endpoint

    if command and not keep:
        raise UsageError("`--run` is for who stays", remedy="add --keep")
    asking = Asking(SpiffeId.parse(identity), Endpoint.parse(server), _evidence(token_file, certificate, key))
    if not keep:
        _once(asking, roots, out, force=force, as_json=as_json)
        return
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"`{command}` is no command: {error}") from None
    asyncio.run(_kept(asking, roots, out, words, force=force))


def _evidence(token_file: Path | None, certificate: Path | None, key: Path | None) -> Evidence:
    from policyd.cli.proving import MachineCertificate, PodToken
    from policyd.errors import UsageError

    if token_file is not None and certificate is None and key is None:
        return PodToken(token_file)
    if token_file is None and certificate is not None and key is not None:
        return MachineCertificate(certificate, key)
    raise UsageError("one kind of evidence", remedy="give --kubernetes-token, or --certificate with --key")


def _once(asking: Asking, roots: Path, out: Path, *, force: bool, as_json: bool) -> None:
    import asyncio

    from policyd.ca.files import read_file
    from policyd.cli import output
    from policyd.cli.certificate import Target, facts
    from proxy.outside import utc_now

    target = Target(out, force)
    target.check()
    svid, bundle = asyncio.run(asking.proved(read_file(roots, MAX_ROOTS), utc_now))
    told = facts(svid, target.write(svid, bundle))
    if as_json:
        output.print_json(told)
    else:
        output.show(output.facts([(name.replace("_", " "), value) for name, value in told.items()]))


async def _kept(asking: Asking, roots: Path, out: Path, command: list[str], *, force: bool) -> None:
    import sys

    from policyd.ca.files import read_file
    from policyd.cli.certificate import Target
    from policyd.cli.keeping import Held, Keeping, held_in
    from proxy.events import speaker
    from proxy.outside import Outside, utc_now

    target = Target(out, force=True)
    target.check()
    named = read_file(roots, MAX_ROOTS)
    held = Held(named) if force else held_in(target.files, asking.spiffe_id, utc_now()) or Held(named)
    keeping = Keeping(asking, target, held, command, Outside(speaker(sys.stdout, utc_now)))
    keeping.heed_signals()
    await keeping.run()
