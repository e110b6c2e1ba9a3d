"""Who is signed in: a name in a signed cookie. Any password will do; the name is all that the sample is about."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable

COOKIE = "session"
LIFETIME = 12 * 3600
"""Seconds until one has to sign in again."""
MAX_COOKIE = 256

# The name goes into the `end-user` header, so it is what a header may hold.
_USER = re.compile(r"[!-~](?:[ -~]{0,62}[!-~])?")
USER_RULE = "a user name is 1 to 64 printable ASCII characters"


def check_user(text: str) -> str:
    """Return the name without the spaces around it; ValueError if it is none."""
    name = text.strip(" ")
    if not _USER.fullmatch(name):
        raise ValueError(USER_RULE)
    return name


class Sessions:
    """Seals names into cookies and opens them again; `clock` gives seconds since 1970."""

    def __init__(self, key: bytes, clock: Callable[[], float]) -> None:
        self._key, self._clock = key, clock

    def seal(self, user: str) -> str:
        """Return the cookie's value for a checked name."""
        payload = f"{int(self._clock()) + LIFETIME}:{user}".encode()
        return f"{_encode(payload)}.{_encode(self._sign(payload))}"

    def open(self, cookie: str) -> str | None:
        """Return the name, or None if the cookie is not ours, was changed, or is too old."""
        if len(cookie) > MAX_COOKIE:
            return None
        payload, _, signature = (_decode(part) for part in cookie.partition("."))
        if not hmac.compare_digest(self._sign(payload), signature):
            return None
        expires, _, user = payload.decode().partition(":")
        return user if self._clock() < int(expires) else None

    def _sign(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, "sha256")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return b""
