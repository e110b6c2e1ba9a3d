"""A join token as text: all that another machine needs to join the mesh.

Law: what parses is bounded and well-formed in every field; the secret shows in no repr. The form is
`policyd1.` + base64url(JSON {"a": address, "r": SHA-256 of the root, "n": agent, "t": trust domain, "s":
secret}).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from policyd.errors import SpiffeIdError, TokenError
from policyd.spiffe import check_trust_domain

PREFIX: Final = "policyd1."
MAX_TEXT: Final = 2048  # characters of the whole token
SECRET_BYTES: Final = 32

_REMEDY: Final = "make a new one with `policyd ca token create`"
_FIELDS: Final = {"a": "address", "r": "root_sha256", "n": "agent", "t": "trust_domain", "s": "secret"}
_AGENT: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_ADDRESS: Final = re.compile(r"(?:\[[0-9a-f:]{2,45}\]|[a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?):([0-9]{1,5})")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 bytes, base64url without padding


@dataclass(frozen=True, slots=True)
class JoinToken:
    """Where to attest and whom to trust there; raises TokenError when a field is not well-formed.

    `address` is `host:port`, `root_sha256` lower-case hex, `secret` 32 bytes in base64url without padding.
    """

    address: str
    root_sha256: str
    agent: str
    trust_domain: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        check_agent_name(self.agent)
        address = _ADDRESS.fullmatch(self.address)
        if not address or not 0 < int(address[1]) < 65536:
            raise TokenError("the join token names no address of the form `host:port`", remedy=_REMEDY)
        if not _SHA256.fullmatch(self.root_sha256):
            raise TokenError("the join token has no SHA-256 of the mesh's root certificate", remedy=_REMEDY)
        if not _SECRET.fullmatch(self.secret):
            raise TokenError("the join token has no secret of 32 bytes", remedy=_REMEDY)
        try:
            check_trust_domain(self.trust_domain)
        except SpiffeIdError as error:
            raise TokenError("the join token names no trust domain", remedy=_REMEDY) from error


def check_agent_name(name: str) -> str:
    """Return `name` if it may name an agent, else raise TokenError."""
    if not _AGENT.fullmatch(name):
        raise TokenError(
            f"`{name[:80]}` is no name for an agent",
            remedy="use up to 63 lower-case letters, digits, dots, dashes and underscores",
        )
    return name


def encode_secret(secret: bytes) -> str:
    """`secret` as it stands in a token: base64url without padding."""
    return base64.urlsafe_b64encode(secret).rstrip(b"=").decode("ascii")


def format_token(token: JoinToken) -> str:
    """The one line that an operator hands to another machine."""
    fields = {key: getattr(token, name) for key, name in _FIELDS.items()}
    body = json.dumps(fields, separators=(",", ":")).encode("ascii")
    return PREFIX + base64.urlsafe_b64encode(body).rstrip(b"=").decode("ascii")


def parse_token(text: str) -> JoinToken:
    """Parse a whole token, white space around it apart; raises TokenError, which never quotes the token."""
    text = text.strip()
    if not text.startswith(PREFIX):
        raise TokenError(f"that is no join token, which starts with `{PREFIX}`", remedy=_REMEDY)
    if len(text) > MAX_TEXT:
        raise TokenError(f"a join token has at most {MAX_TEXT} characters, this one {len(text)}", remedy=_REMEDY)
    fields = _decode(text[len(PREFIX) :])
    if set(fields) != set(_FIELDS) or not all(isinstance(value, str) for value in fields.values()):
        raise TokenError("the join token lacks fields or has foreign ones", remedy=_REMEDY)
    return JoinToken(**{_FIELDS[key]: value for key, value in fields.items()})


def _decode(body: str) -> dict[str, Any]:
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        fields = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (binascii.Error, ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise TokenError("the join token is cut short or changed", remedy="copy the whole line, or " + _REMEDY)
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is there twice")
    return fields
