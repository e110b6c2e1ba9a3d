"""One question to a service that this side trusts for something: signing, or judging a token.

Law: over TLS that is verified, or on this machine; no redirect is followed, no more is read than was asked for, and
nothing is waited for longer than was said in all, however little comes at once. A bearer token is read anew each time,
so that it may change, and only if nobody else can read it.
"""

from __future__ import annotations

import http.client
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from policyd.ca.elsewhere import MAX_SAID
from policyd.ca.files import read_secret
from policyd.errors import IdentityError, PolicydError


@dataclass(frozen=True, slots=True)
class Service:
    """Where it is, the file of the bearer token that it wants, that of the roots which vouch for it, and how long."""

    url: str
    token: Path | None = None
    roots: Path | None = None
    seconds: float = 5.0

    def ask(self, method: str, data: bytes, kind: str, most: int) -> bytes:
        """The body of its answer, of at most `most` bytes (what is longer is cut); raises IdentityError."""
        try:
            return self._asked(method, data, kind, most)
        except TimeoutError:
            raise IdentityError(f"`{self.url}` did not answer within {self.seconds:g} seconds") from None
        except (OSError, http.client.HTTPException) as error:
            raise IdentityError(f"`{self.url}` cannot be asked: {str(error)[:MAX_SAID]}") from error

    def _asked(self, method: str, data: bytes, kind: str, most: int) -> bytes:
        ends = time.monotonic() + self.seconds
        parts = urlsplit(self.url)
        connection = self._connection(parts.scheme, parts.hostname or "", parts.port)
        try:
            target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
            connection.request(method, target, data or None, self._headers(kind))
            with connection.getresponse() as answer:  # where it ends with the answer, it is the answer's to close
                good = answer.status in (http.HTTPStatus.OK, http.HTTPStatus.CREATED)
                body = _body(connection, answer, ends, most if good else MAX_SAID)
        finally:
            connection.close()
        if not good:
            said = body.decode("utf-8", "replace").strip()[:MAX_SAID]
            raise IdentityError(f"`{self.url}` answers {answer.status}: {said}")
        return body

    def _connection(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme == "http":  # the settings let it on this machine only
            return http.client.HTTPConnection(host, port, timeout=self.seconds)
        context = ssl.create_default_context(cafile=str(self.roots) if self.roots else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return http.client.HTTPSConnection(host, port, timeout=self.seconds, context=context)

    def _headers(self, kind: str) -> dict[str, str]:
        headers = {"Content-Type": kind, "Accept": kind}
        if self.token is None:
            return headers
        try:
            token = read_secret(self.token).split(b"\n", 1)[0].decode("ascii").strip()
        except (PolicydError, UnicodeDecodeError) as error:
            raise IdentityError(f"the token for `{self.url}` cannot be read: {error}") from error
        if not token or not token.isprintable():
            raise IdentityError(f"`{self.token}` holds no token", remedy="write it into its first line")
        return {**headers, "Authorization": f"Bearer {token}"}


def _body(connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, ends: float, most: int) -> bytes:
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
