"""Tickets of the console: the link that opens it once, and the session that it opens.

Law: pure. A ticket says what it is for, whose, and until when, and carries a keyed hash of all that; what does not have
it, is for something else or has ended is no ticket. The key stays in the state folder of its owner.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final, Literal

Use = Literal["link", "session"]

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 16
LINK_SECONDS: Final = 600
SESSION_SECONDS: Final = 12 * 3600
MAX_TICKET: Final = 400  # characters
_PARTS: Final = 5


@dataclass(frozen=True, slots=True)
class Ticket:
    """What was issued: `who` may come in, from `issued` until `ends`, in seconds since the epoch."""

    use: Use
    who: str
    issued: int
    ends: int
    nonce: str


def link(key: bytes, who: str, now: int, nonce: bytes) -> str:
    """Write a ticket that opens the console once."""
    return _written(key, Ticket("link", who, now, now + LINK_SECONDS, nonce.hex()))


def session(key: bytes, who: str, now: int, nonce: bytes) -> str:
    """Write a ticket that keeps it open."""
    return _written(key, Ticket("session", who, now, now + SESSION_SECONDS, nonce.hex()))


def read(key: bytes, use: Use, text: str, now: int) -> Ticket | None:
    """Read a ticket; None for what is none, not for this use, or not good now."""
    parts = text.split("~") if len(text) <= MAX_TICKET and text.isascii() else []
    if len(parts) != _PARTS or not hmac.compare_digest(_hash(key, use, parts[:-1]), parts[-1]):
        return None
    who, issued, ends, nonce = parts[:-1]
    found = Ticket(use, who, int(issued), int(ends), nonce)
    return found if found.issued <= now < found.ends else None


def proof(key: bytes, ticket: Ticket) -> str:
    """What a page of this session sends with each action, and no other page can know."""
    return _hash(key, "action", [ticket.who, ticket.nonce])


def same(one: str, other: str) -> bool:
    """Compare two proofs in a time that tells nothing of them."""
    return hmac.compare_digest(one.encode(), other.encode())


def _written(key: bytes, ticket: Ticket) -> str:
    parts = [ticket.who, str(ticket.issued), str(ticket.ends), ticket.nonce]
    if len(key) < KEY_BYTES or "~" in ticket.who:
        raise ValueError("a ticket needs a whole key, and a name without `~`")
    return "~".join([*parts, _hash(key, ticket.use, parts)])


def _hash(key: bytes, use: str, parts: list[str]) -> str:
    return hmac.new(key, "~".join([use, *parts]).encode(), hashlib.sha256).hexdigest()
