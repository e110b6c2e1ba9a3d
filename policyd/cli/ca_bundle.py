"""`policyd ca bundle ...`: what verifies the identities of the trust domain, as SPIFFE has it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policyd.cli.lazy import group
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd.svid.bundle import Bundle

app = group("The trust domain's bundle: its roots and the keys of its tokens, as SPIFFE's JWK set.")

Pem = Annotated[bool, typer.Option("--pem", help="The roots alone, in PEM, for programs that know nothing of SPIFFE.")]
Jwt = Annotated[bool, typer.Option("--jwt", help="The keys of tokens alone, as a JWK set, for verifiers of tokens.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the JWK set itself.")]


@app.command()
def show(directory: Dir = None, pem: Pem = False, jwt: Jwt = False, as_json: AsJson = False) -> None:
    """Show what verifies certificates and tokens of this trust domain."""
    import json

    from policyd.cli import output
    from policyd.cli.bundles import table_of

    _check(pem=pem, jwt=jwt)
    bundle = running_bundle(directory)
    if pem:
        print(_pem(bundle), end="")
    elif as_json or jwt:
        output.print_json(json.loads(_document(bundle, jwt=jwt)))
    else:
        numbers = (("trust domain", bundle.trust_domain), ("sequence", str(bundle.sequence)))
        output.show(output.facts([*numbers, ("refresh hint", f"{bundle.refresh_hint} s")]), "", table_of(bundle))


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; `-` prints it.", show_default=False)],
    directory: Dir = None,
    pem: Pem = False,
    jwt: Jwt = False,
    as_json: Json = False,
) -> None:
    """Write the bundle to a file, whole or not at all: for another trust domain, or a verifier elsewhere."""
    from policyd.cli import output
    from policyd.cli.public_file import put

    _check(pem=pem, jwt=jwt)
    bundle = running_bundle(directory)
    stream = put(file, _pem(bundle).encode() if pem else _document(bundle, jwt=jwt), as_json=as_json)
    roots, keys = (0 if jwt else len(bundle.roots)), (0 if pem else len(bundle.jwt_keys))
    if as_json:
        found = {"trust_domain": bundle.trust_domain, "sequence": bundle.sequence, "roots": roots, "keys": keys}
        output.print_json({"file": str(file), **found})
    else:
        said = f"wrote the bundle of `{bundle.trust_domain}`: roots {roots}, keys of tokens {keys}"
        output.show(said, stream=stream)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A bundle: SPIFFE's JWK set.", show_default=False)],
    trust_domain: Annotated[
        str, typer.Option("--trust-domain", help="Whose it is; the file does not say.", show_default=False)
    ],
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Know the workloads of another trust domain by a bundle that its operator gave you.

    Make sure that it is theirs: who can give you another one can be any of their workloads.
    """
    from policyd.cli import output
    from policyd.cli.bundles import read_document, said
    from policyd.instance import folder, server

    document = read_document(file)
    with server(folder(directory)) as client:
        found = client.import_bundle(trust_domain, document)
    if as_json:
        output.print_json({"trust_domain": trust_domain, "sequence": found.sequence, "roots": found.roots})
    else:
        output.show(said(found))


def _check(*, pem: bool, jwt: bool) -> None:
    from policyd.errors import UsageError

    if pem and jwt:
        raise UsageError("keys of tokens have no certificates", remedy="give --pem or --jwt, not both")


def _document(bundle: Bundle, *, jwt: bool) -> bytes:
    from policyd.svid.bundle import JWT_SVID, USES, write

    return write(bundle, (JWT_SVID,) if jwt else USES) + b"\n"


def running_bundle(directory: Path | None) -> Bundle:
    """The bundle of a server that runs for a folder."""
    from policyd.instance import folder, server
    from policyd.svid.bundle import read

    with server(folder(directory)) as client:
        reply = client.bundle()
    return read(reply.document, reply.trust_domain)


def _pem(bundle: Bundle) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return "".join(root.public_bytes(Encoding.PEM).decode() for root in bundle.authorities)
