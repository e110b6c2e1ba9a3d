"""`policyd ca inspect FILE`: what a certificate, a request, a token or a bundle says, for people.

Law: needs no server, believes nothing and says so; of a private key nothing is shown.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from policyd.cli.options import Json

if TYPE_CHECKING:
    from cryptography import x509

    from policyd.svid.material import Material

Facts = Mapping[str, Any]
File = Annotated[
    Path, typer.Argument(metavar="FILE", help="A file, PEM or not; `-` reads standard input.", show_default=False)
]
STDIN: Final = "-"


def inspect(file: File, as_json: Json = False) -> None:
    """Show what certificates, a signing request, a token (JWT-SVID) or a bundle say. Nothing is verified.

    Whether it is true is what `policyd ca verify` answers.
    """
    from policyd.cli import output

    with of_file(file):
        described = describe(material(file), datetime.now(UTC))
    if as_json:
        output.print_json(described)
        return
    for number, facts in enumerate(described):
        shown = [(name, value if isinstance(value, str) else _text(value)) for name, value in facts.items()]
        output.show(*([""] if number else []), output.facts([(name.replace("_", " "), value) for name, value in shown]))


def material(file: Path) -> Material:
    """What a file holds; raises InvalidInput, which names it."""
    from policyd.svid.material import read

    with of_file(file):
        return read(content(file))


@contextmanager
def of_file(file: Path) -> Iterator[None]:
    """What is wrong with the content of a file is invalid input, and names the file."""
    from policyd.errors import IdentityError, InvalidInput, Problem, SpiffeIdError

    try:
        yield
    except (IdentityError, SpiffeIdError) as error:
        raise InvalidInput([Problem(error.code, error.message, str(file), remedy=error.remedy)]) from None


def content(file: Path) -> bytes:
    """The bytes of a file or of standard input, bounded; raises UsageError."""
    from policyd.errors import UsageError
    from policyd.svid.material import MAX_BYTES

    try:
        if str(file) == STDIN:
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"`{file}` cannot be read: {reason}", remedy="name a file that is there") from None


def describe(material: Material, now: datetime) -> Sequence[Facts]:
    """Return the facts of each thing in it; raises IdentityError."""
    from policyd.svid import material as kinds

    match material:
        case kinds.Certificates(certificates):
            return [_certificate(one, now) for one in certificates]
        case kinds.Request(request):
            return [_request(request)]
        case kinds.Token(text):
            return [_token(text, now)]
        case kinds.KeySet(document):
            return _key_set(document)
        case kinds.PrivateKey(label):
            return [{"kind": label.lower(), "shown": "nothing: whoever has it is whom its certificate names"}]


def _certificate(certificate: x509.Certificate, now: datetime) -> Facts:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    end = certificate.not_valid_after_utc
    constraints = _extension(certificate, x509.BasicConstraints)
    usage, purposes = _extension(certificate, x509.KeyUsage), _extension(certificate, x509.ExtendedKeyUsage)
    return {
        "kind": "certificate of an authority" if constraints is not None and constraints.ca else "certificate",
        **_names(certificate),
        "subject": certificate.subject.rfc4514_string() or "-",
        "issuer": certificate.issuer.rfc4514_string() or "-",
        "serial": f"{certificate.serial_number:032x}",
        "begins": f"{certificate.not_valid_before_utc:%FT%TZ}",
        "ends": f"{end:%FT%TZ}",
        "state": _state(certificate.not_valid_before_utc, end, now),
        "key": _key(certificate.public_key),
        "usage": [name for name in _USAGES if usage is not None and getattr(usage, name)],
        "purposes": [getattr(one, "_name", one.dotted_string) for one in purposes or ()],
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
    }


def _request(request: x509.CertificateSigningRequest) -> Facts:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        signed = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):  # of a kind that the library does not know: proves nothing
        signed = False
    return {
        "kind": "certificate signing request",
        **_names(request),
        "subject": request.subject.rfc4514_string() or "-",
        "key": _key(request.public_key),
        "signed_by_its_key": signed,
    }


def _token(text: str, now: datetime) -> Facts:
    from policyd.svid.jwt import read

    svid = read(text)
    begins = datetime.fromtimestamp(0, UTC)
    return {
        "kind": "token (JWT-SVID), not verified",
        "spiffe_id": str(svid.spiffe_id),
        "audiences": list(svid.audiences),
        "ends": f"{svid.expires:%FT%TZ}",
        "state": _state(begins, svid.expires, now),
        "key_id": svid.kid,
        "claims": {name: one for name, one in svid.claims.items() if name not in ("sub", "aud", "exp")},
    }


def _key_set(document: bytes) -> Sequence[Facts]:
    from policyd.errors import IdentityError
    from policyd.svid import jose

    value = jose.read_object(document)
    keys = value.get("keys")
    if not isinstance(keys, list):
        raise IdentityError("this JSON is no JWK set: it has no list `keys`")
    head = {
        "kind": "bundle (JWK set)",
        "sequence": value.get("spiffe_sequence"),
        "refresh_hint": value.get("spiffe_refresh_hint"),
        "keys": len(keys),
    }
    members = ("use", "kty", "crv", "kid")
    return [head, *({name: key[name] for name in members if name in key} for key in keys if isinstance(key, dict))]


_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign",
)  # fmt: skip


def _names(holder: x509.Certificate | x509.CertificateSigningRequest) -> Facts:
    from cryptography import x509

    names = _extension(holder, x509.SubjectAlternativeName)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else []
    dns = names.get_values_for_type(x509.DNSName) if names is not None else []
    return {"spiffe_id" if len(uris) == 1 else "uris": uris[0] if len(uris) == 1 else uris, "dns_names": dns}


def _extension(holder: Any, kind: type[Any]) -> Any:
    """The extension's value, or None; raises IdentityError for extensions that cannot be read."""
    from cryptography import x509

    from policyd.svid.x509 import extensions

    try:
        return extensions(holder).get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _key(public_key: Any) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    try:
        key = public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "of a kind that is not known here"
    match key:
        case ec.EllipticCurvePublicKey():
            return f"EC {key.curve.name}"
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
    return type(key).__name__.removesuffix("PublicKey")


def _state(begins: datetime, ends: datetime, now: datetime) -> str:
    from policyd.wording import span

    if now < begins:
        return f"begins in {span(int((begins - now).total_seconds()))}"
    left = int((ends - now).total_seconds())
    return f"ends in {span(left)}" if left > 0 else f"ended {span(-left)} ago"


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value)) or "-"
        case dict():
            return " ".join(f"{name}={one}" for name, one in value.items()) or "-"
    return str(value)
