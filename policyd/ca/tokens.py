"""One-use join tokens: made by an operator, claimed once by an agent.

Law: of a secret only the SHA-256 is kept. A claim is one UPDATE that either uses the token or changes
nothing, and holds only if all that it is for succeeds. The caller never learns why a token was refused; the
record does.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from policyd.ca.assignment import Registration
from policyd.ca.database import Database
from policyd.ca.template import Random
from policyd.errors import NotFound, TokenError
from policyd.join_token import SECRET_BYTES, check_agent_name, encode_secret
from policyd.spiffe import SpiffeId

DEFAULT_TTL: Final = timedelta(minutes=10)
LONGEST_TTL: Final = timedelta(days=7)
ID_DIGITS: Final = 12  # of the hash of its secret, by which a token is named
KEPT: Final = timedelta(days=7)  # after its end, so that a late use is told apart from a wrong secret

Reason = Literal["unknown", "used", "expired"]


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made: the only place where its secret is in plain text."""

    secret: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Made:
    """A token that was made; times are seconds since the epoch, `used_at` None while it was not used."""

    id: str
    agent: str
    workloads: frozenset[SpiffeId]
    created_at: int
    expires_at: int
    used_at: int | None


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a token was not accepted, for the record alone; `agent` is known of used and expired ones."""

    reason: Reason
    agent: str = ""


class Tokens:
    """The join tokens of one mesh, and the agents that joined with them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._registrations: dict[str, Registration] = {}  # those asked for, until one changes
        self._agents: tuple[Registration, ...] | None = None  # all, likewise

    def create(
        self,
        registration: Registration,
        *,
        now: datetime,
        random: Random,
        ttl: timedelta = DEFAULT_TTL,
    ) -> NewToken:
        """A token for one agent, valid until `now` + `ttl`; raises TokenError for a bad name or life."""
        check_agent_name(registration.agent)
        if not timedelta(0) < ttl <= LONGEST_TTL:
            raise TokenError(
                f"a join token lives up to {LONGEST_TTL.days} days, not {ttl}", remedy="ten minutes are the default"
            )
        secret = encode_secret(random(SECRET_BYTES))
        expires_at = (now + ttl).replace(microsecond=0)
        row = (_hash(secret), registration.agent, _dump(registration.workloads), _second(now), _second(expires_at))
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM token WHERE expires_at < ?", (_second(now - KEPT),))
            connection.execute(
                "INSERT INTO token (hash, agent, workloads, created_at, expires_at) VALUES (?, ?, ?, ?, ?)", row
            )
        return NewToken(secret, expires_at)

    def all(self) -> tuple[Made, ...]:
        """Every token that is kept, the newest first; none of their secrets."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT hash, agent, workloads, created_at, expires_at, used_at FROM token"
                " ORDER BY created_at DESC, hash"
            ).fetchall()
        return tuple(Made(row[0].hex()[:ID_DIGITS], row[1], _parse(row[2]), *row[3:]) for row in rows)

    def revoke(self, identifier: str, now: datetime, record: Callable[[str], object] = lambda _: None) -> str:
        """Make an unused token worthless, once `record` is done with its agent; returns that.

        Raises NotFound for one that is unknown, used or over.
        """
        with self._database.transaction() as connection:
            found = connection.execute(
                "SELECT hash, agent FROM token WHERE substr(lower(hex(hash)), 1, ?) = ?"
                " AND used_at IS NULL AND expires_at > ?",
                (ID_DIGITS, identifier, _second(now)),
            ).fetchall()
            if len(found) != 1:
                raise NotFound(
                    f"no token that could still be used is `{identifier[:40]}`",
                    remedy="look at `policyd ca token list`; to end an agent's identity, revoke that",
                )
            [(digest, agent)] = found
            connection.execute("UPDATE token SET expires_at = ? WHERE hash = ?", (_second(now), digest))
            record(str(agent))
        return str(agent)

    @contextmanager
    def claim(self, secret: str, now: datetime) -> Iterator[Registration | Refused]:
        """Use a token and register its agent for as long as the block runs; kept only if the block ends well.

        Of two claims at once the second waits for the first and then finds the token used.
        """
        with self._database.transaction() as connection:
            try:
                yield _claim(connection, _hash(secret), _second(now))
            finally:
                self._changed()

    def registration(self, agent: str) -> Registration | None:
        """What the agent of that name may obtain, or None where none has joined; this process alone changes it."""
        known = self._registrations.get(agent)
        if known is not None:
            return known
        with self._database.transaction() as connection:
            row = connection.execute("SELECT workloads FROM agent WHERE name = ?", (agent,)).fetchone()
            if row is None:
                return None
            found = self._registrations[agent] = Registration(agent, _parse(row[0]))
        return found

    def agents(self) -> tuple[Registration, ...]:
        """Every agent that has joined, by name: asked for each that is told what to run, so kept until one changes."""
        known = self._agents
        if known is not None:
            return known
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT name, workloads FROM agent ORDER BY name").fetchall()
            found = self._agents = tuple(Registration(name, _parse(workloads)) for name, workloads in rows)
        return found

    def forget(self, agent: str) -> bool:
        """Remove an agent, which then gets no further certificate; False where there is none."""
        with self._database.transaction() as connection:
            try:
                return connection.execute("DELETE FROM agent WHERE name = ?", (agent,)).rowcount == 1
            finally:
                self._changed()

    def _changed(self) -> None:
        self._registrations.clear()
        self._agents = None


def _claim(connection: sqlite3.Connection, digest: bytes, now: int) -> Registration | Refused:
    row = connection.execute("SELECT hash, agent, workloads, used_at FROM token WHERE hash = ?", (digest,)).fetchone()
    # the index has found it by hash, which tells a guesser nothing of the secret; the comparison is the rule
    if row is None or not hmac.compare_digest(row[0], digest):
        return Refused("unknown")
    _, agent, workloads, used_at = row
    used = connection.execute(
        "UPDATE token SET used_at = ? WHERE hash = ? AND used_at IS NULL AND expires_at > ?", (now, digest, now)
    )
    if used.rowcount != 1:
        return Refused("expired" if used_at is None else "used", agent)
    connection.execute(
        "INSERT INTO agent (name, workloads, registered_at) VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET workloads = excluded.workloads, registered_at = excluded.registered_at",
        (agent, workloads, now),
    )
    return Registration(agent, _parse(workloads))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _second(time: datetime) -> int:
    return int(time.timestamp())


def _dump(workloads: Iterable[SpiffeId]) -> str:
    return json.dumps(sorted(map(str, workloads)))


def _parse(text: str) -> frozenset[SpiffeId]:
    return frozenset(map(SpiffeId.parse, json.loads(text)))
