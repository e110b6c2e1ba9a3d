"""`policyd ca verify FILE`: is a certificate chain or a token true, by a bundle, at a moment?

Law: verifies by policyd.svid, as agents do; the bundle is the server's own, or a file that the user named together
with its trust domain. 0 is true, 2 is not.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policyd.cli.ca_bundle import running_bundle
from policyd.cli.ca_inspect import File, material, of_file
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd.spiffe import SpiffeId
    from policyd.svid.bundle import Bundle
    from policyd.svid.material import Material


def verify(
    file: File,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", help="Roots in PEM, or a JWK set; without it the server is asked.", show_default=False
        ),
    ] = None,
    trust_domain: Annotated[str, typer.Option("--trust-domain", help="Whose bundle that is.", show_default=False)] = "",
    audience: Annotated[str, typer.Option("--audience", help="Whom the token is shown to.", show_default=False)] = "",
    at: Annotated[
        str, typer.Option("--at", metavar="TIME", help="At that moment instead of now.", show_default=False)
    ] = "",
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Verify a certificate chain (X.509-SVID, leaf first) or a token (JWT-SVID), by every rule of SPIFFE.

    The exit code is 0 if it is true, 2 if it is not.
    """
    from policyd.audit.moments import moment
    from policyd.cli import output
    from policyd.cli.exits import Exit
    from policyd.errors import IdentityError, UsageError
    from policyd.svid.material import Token

    shown = material(file)
    if isinstance(shown, Token) != bool(audience):
        remedy = "give --audience with a token, and with nothing else"
        raise UsageError("a token is verified by whom it is shown to", remedy=remedy)
    if (bundle is None) != (not trust_domain):
        raise UsageError("a bundle is one of a trust domain", remedy="give --bundle and --trust-domain together")
    now = datetime.now(UTC)
    held = running_bundle(directory) if bundle is None else from_file(bundle, trust_domain)
    try:
        proved = prove(shown, held, audience, moment(at, now, UTC) if at else now)
    except IdentityError as error:
        if as_json:
            output.print_json({"verified": False, "reason": error.message})
        else:
            output.show(f"not verified: {error}")
        raise typer.Exit(Exit.DENIED) from None
    if as_json:
        output.print_json({"verified": True, "spiffe_id": str(proved)})
    else:
        output.show(f"verified: `{proved}`")


def prove(shown: Material, bundle: Bundle, audience: str, now: datetime) -> SpiffeId:
    """Whom it proves at `now`; raises IdentityError, InvalidInput for what proves nobody ever."""
    from policyd.errors import InvalidInput, Problem
    from policyd.svid import jwt, x509
    from policyd.svid.material import Certificates, Token

    match shown:
        case Token(text):
            return jwt.validate(text, {bundle.trust_domain: bundle}.get, audience, now).spiffe_id
        case Certificates(certificates):
            return x509.verify(certificates, bundle.authorities, bundle.trust_domain, now)
    remedy = "name a certificate chain or a token; `policyd ca inspect` shows it"
    raise InvalidInput([Problem("identity", "this proves nobody", remedy=remedy)])


def from_file(file: Path, trust_domain: str) -> Bundle:
    """The bundle of a file that the user named; raises InvalidInput, and UsageError where it cannot be read."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from policyd.errors import InvalidInput, Problem
    from policyd.spiffe import check_trust_domain
    from policyd.svid.bundle import Bundle, read
    from policyd.svid.material import Certificates, KeySet

    found = material(file)
    with of_file(file):
        match found:
            case KeySet(document):
                return read(document, trust_domain)
            case Certificates(certificates):
                roots = tuple(one.public_bytes(Encoding.DER) for one in certificates)
                return Bundle(check_trust_domain(trust_domain), roots)
    raise InvalidInput([Problem("bundle", "is no bundle", str(file), remedy="name roots in PEM, or a JWK set")])
