"""Which sessions have ended before their time: one that was left, and those that their owner ended from another.

Law: what has ended stays ended, for the next process too: it is on disk before the answer says so. Memory is bounded;
who ends more sessions than are remembered ends all of theirs. A file that says nothing readable ends every session that
began before it was read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Final

from policyd.sources.state import write_private
from policyd.tickets import SESSION_SECONDS, Ticket

MAX_ENDED: Final = 2_000  # sessions that are remembered one by one
MAX_OPERATORS: Final = 1_000
MAX_FILE: Final = 4 << 20  # bytes

Write = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Cut:
    """All of an operator's sessions that began until a moment have ended, but those that are kept."""

    until: int
    kept: frozenset[str] = frozenset()


@dataclass(slots=True)
class Sessions:
    """What has ended; `write` keeps it."""

    write: Write = field(default=lambda _: None)
    everybody: int = -1  # sessions that began until then have ended
    ended: dict[str, int] = field(default_factory=dict)  # when each would have, by nonce
    cuts: dict[str, Cut] = field(default_factory=dict)
    _changing: Lock = field(default_factory=Lock)

    def holds(self, ticket: Ticket) -> bool:
        """Whether a session goes on."""
        if ticket.nonce in self.ended or ticket.issued <= self.everybody:
            return False
        cut = self.cuts.get(ticket.who)
        return cut is None or ticket.issued > cut.until or ticket.nonce in cut.kept

    def begun(self, ticket: Ticket) -> None:
        """A session that begins within the second in which others were ended is none of them."""
        with self._changing:
            cut = self.cuts.get(ticket.who)
            if cut is not None and ticket.issued <= cut.until:
                self.cuts[ticket.who] = Cut(cut.until, cut.kept | {ticket.nonce})
                self._keep()

    def end(self, ticket: Ticket, now: int) -> None:
        """End one session."""
        with self._changing:
            self.ended = {nonce: ends for nonce, ends in self.ended.items() if ends > now}
            if len(self.ended) < MAX_ENDED:
                self.ended[ticket.nonce] = ticket.ends
            else:
                self._cut(ticket.who, Cut(now), now)
            self._keep()

    def end_others(self, ticket: Ticket, now: int) -> None:
        """End all other sessions of who has this one."""
        with self._changing:
            self._cut(ticket.who, Cut(now, frozenset({ticket.nonce})), now)
            self._keep()

    def _cut(self, who: str, cut: Cut, now: int) -> None:
        self.cuts = {one: known for one, known in self.cuts.items() if known.until + SESSION_SECONDS > now}
        self.cuts[who] = cut
        while len(self.cuts) > MAX_OPERATORS:  # the oldest cut holds for everybody
            oldest = min(self.cuts, key=lambda one: self.cuts[one].until)
            self.everybody = max(self.everybody, self.cuts.pop(oldest).until)

    def _keep(self) -> None:
        cuts = {who: {"until": cut.until, "kept": sorted(cut.kept)} for who, cut in self.cuts.items()}
        self.write(json.dumps({"everybody": self.everybody, "ended": self.ended, "cuts": cuts}).encode())


def sessions_of(path: Path, now: int) -> Sessions:
    """What a file says has ended, which is nothing where there is none; raises OSError where it cannot be read."""

    def write(data: bytes) -> None:
        write_private(path, data)

    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return Sessions(write)
    try:
        return _read(json.loads(data), write)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Sessions(write, everybody=now)


def _read(value: Mapping[str, Any], write: Write) -> Sessions:
    ended = {str(nonce): int(ends) for nonce, ends in value["ended"].items()}
    cuts = {str(who): Cut(int(one["until"]), frozenset(map(str, one["kept"]))) for who, one in value["cuts"].items()}
    return Sessions(write, int(value["everybody"]), ended, cuts)
