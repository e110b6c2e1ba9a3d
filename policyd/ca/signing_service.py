"""A service that signs: POST with what is to be signed as its body, the signature as that of the answer.

Law: over TLS that is verified, or on this machine; no redirect is followed, no answer is read beyond a signature's
length, and nothing is waited for longer than a signer may take in all. The token is read anew for each signature, so
that it may change, and only if nobody else can read it.
"""

from __future__ import annotations

import http.client
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from policyd.ca.elsewhere import MAX_SAID, MAX_SIGNATURE, SECONDS
from policyd.ca.files import read_secret
from policyd.errors import IdentityError, PolicydError

TYPE: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class SigningService:
    """Where it is, the file of the bearer token that it wants, and that of the roots which vouch for it."""

    url: str
    token: Path | None = None
    roots: Path | None = None
    seconds: float = SECONDS

    @property
    def name(self) -> str:
        """Its address."""
        return self.url

    def __call__(self, data: bytes) -> bytes:
        """What it answers; raises IdentityError."""
        try:
            return self._asked(data)
        except TimeoutError:
            raise IdentityError(f"`{self.url}` did not sign within {self.seconds:g} seconds") from None
        except (OSError, http.client.HTTPException) as error:
            raise IdentityError(f"`{self.url}` cannot be asked to sign: {str(error)[:MAX_SAID]}") from error

    def _asked(self, data: bytes) -> bytes:
        ends = time.monotonic() + self.seconds
        parts = urlsplit(self.url)
        connection = self._connection(parts.scheme, parts.hostname or "", parts.port)
        try:
            connection.request("POST", _target(parts.path, parts.query), data, self._headers())
            answer = connection.getresponse()
            body = _body(connection, answer, ends)
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            said = body.decode("utf-8", "replace").strip()[:MAX_SAID]
            raise IdentityError(f"`{self.url}` signs nothing, it answers {answer.status}: {said}")
        return body

    def _connection(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme == "http":  # the settings let it on this machine only
            return http.client.HTTPConnection(host, port, timeout=self.seconds)
        context = ssl.create_default_context(cafile=str(self.roots) if self.roots else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return http.client.HTTPSConnection(host, port, timeout=self.seconds, context=context)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": TYPE, "Accept": TYPE}
        if self.token is None:
            return headers
        try:
            token = read_secret(self.token).split(b"\n", 1)[0].decode("ascii").strip()
        except (PolicydError, UnicodeDecodeError) as error:
            raise IdentityError(f"the token of `{self.url}` cannot be read: {error}") from error
        if not token or not token.isprintable():
            raise IdentityError(f"`{self.token}` holds no token", remedy="write it into its first line")
        return {**headers, "Authorization": f"Bearer {token}"}


def _target(path: str, query: str) -> str:
    return f"{path or '/'}?{query}" if query else path or "/"


def _body(connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, ends: float) -> bytes:
    """As much as a signature has, or a complaint; raises TimeoutError when time is up, however little comes at once."""
    most = MAX_SIGNATURE if answer.status == http.HTTPStatus.OK else MAX_SAID
    body = b""
    while len(body) < most:
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if connection.sock is not None:
            connection.sock.settimeout(left)
        if not (piece := answer.read1(most - len(body))):
            break
        body += piece
    return body
