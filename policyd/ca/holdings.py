"""What agents say that they and their Envoys hold: how new a bundle, and certificates of which authorities.

Law: kept over restarts, because an agent that is away for a moment goes on with what it holds. Who was not heard of
for as long as a certificate lives has none that is good, and nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from policyd.ca.database import Database
from policyd.errors import RotationError

MAX_BEHIND: Final = 512  # instances of one agent
MAX_NAME: Final = 253
MAX_SEQUENCE: Final = (1 << 63) - 1  # what the database can hold
MAX_AUTHORITIES: Final = 16  # in use at one agent
DIGEST: Final = 32  # bytes of a SHA-256

_SEPARATOR: Final = "\n"


@dataclass(frozen=True, slots=True)
class Holding:
    """What one agent holds: the bundle's sequence, the instances whose Envoys have not confirmed it, the SHA-256 of
    each signing certificate that its chains show; `heard` is when it last was there, in seconds since the epoch.
    """

    agent: str
    sequence: int
    behind: tuple[str, ...] = ()
    authorities: frozenset[bytes] = frozenset()
    heard: int = 0


def checked(agent: str, sequence: int, behind: Iterable[str], authorities: Iterable[bytes], heard: int) -> Holding:
    """A holding as an agent tells it of itself; raises RotationError for what cannot be."""
    names, digests = tuple(sorted(set(behind))), frozenset(authorities)
    if len(names) > MAX_BEHIND or not all(0 < len(name) <= MAX_NAME and name.isprintable() for name in names):
        raise RotationError(f"an agent tells of at most {MAX_BEHIND} instances, by their names")
    if len(digests) > MAX_AUTHORITIES or any(len(one) != DIGEST for one in digests):
        raise RotationError(f"an agent uses certificates of at most {MAX_AUTHORITIES} authorities")
    return Holding(agent, min(sequence, MAX_SEQUENCE), names, digests, heard)


def waiting(
    holdings: Iterable[Holding], sequence: int, present: Collection[str], now: int, life: timedelta
) -> dict[str, str]:
    """The agents that do not hold the bundle of `sequence` yet, and why; those `present` are connected now."""
    found = dict.fromkeys(present, "it has not said yet what it holds")
    for one in awaited(holdings, present, now, life):
        found.pop(one.agent, None)
        away = "" if one.agent in present else ", and it is away"
        if one.sequence < sequence:
            found[one.agent] = f"it holds bundle {one.sequence} of {sequence}{away}"
        elif one.behind:
            found[one.agent] = f"the Envoys of {_named(one.behind)} have not confirmed the bundle{away}"
    return found


def using(
    holdings: Iterable[Holding], signers: Collection[bytes], present: Collection[str], now: int, life: timedelta
) -> dict[str, str]:
    """The agents that use a certificate which one of `signers` (SHA-256) has signed, or may do so."""
    found = dict.fromkeys(present, "it has not said yet what it uses")
    for one in awaited(holdings, present, now, life):
        found.pop(one.agent, None)
        if one.authorities & frozenset(signers):
            away = "" if one.agent in present else ", and it is away"
            found[one.agent] = f"not all that it shows is renewed{away}"
    return found


def awaited(holdings: Iterable[Holding], present: Collection[str], now: int, life: timedelta) -> list[Holding]:
    """Of those that are there, or were so lately that they may still be good for something."""
    return [one for one in holdings if one.agent in present or now - one.heard < life.total_seconds()]


class Holdings:
    """What every agent said last."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held = {one.agent: one for one in _read(database)}

    def all(self) -> tuple[Holding, ...]:
        """By agent."""
        return tuple(one for _, one in sorted(self._held.items()))

    def hear(self, holding: Holding) -> None:
        """Keep what an agent says; raises StateError."""
        row = (
            holding.agent,
            holding.sequence,
            _SEPARATOR.join(holding.behind),
            _SEPARATOR.join(sorted(one.hex() for one in holding.authorities)),
            holding.heard,
        )
        with self._database.transaction(at_once=False) as connection:
            connection.execute("INSERT OR REPLACE INTO holding VALUES (?, ?, ?, ?, ?)", row)
        self._held[holding.agent] = holding

    def seen(self, agents: Iterable[str], now: int) -> None:
        """Those agents are there now; raises StateError."""
        rows = [(now, name) for name in agents]
        with self._database.transaction(at_once=False) as connection:
            connection.executemany("UPDATE holding SET heard = ? WHERE agent = ?", rows)
        self._held |= {one.agent: one for one in _read(self._database)}


def _read(database: Database) -> Iterable[Holding]:
    with database.transaction() as connection:
        rows = connection.execute("SELECT agent, sequence, behind, authorities, heard FROM holding").fetchall()
    for agent, sequence, behind, authorities, heard in rows:
        digests = frozenset(bytes.fromhex(one) for one in _split(authorities))
        yield Holding(agent, sequence, _split(behind), digests, heard)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(_SEPARATOR)) if text else ()


def _named(instances: Collection[str]) -> str:
    names = ", ".join(f"`{name}`" for name in list(instances)[:3])
    return names + (f" and {len(instances) - 3} more" if len(instances) > 3 else "")
