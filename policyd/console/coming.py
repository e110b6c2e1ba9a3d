"""What comes into the journal while a page is open, as events: from the place where the page is, without gap or double.

Law: bounded. What came while nobody listened is read backward and no further than LOOKED records; of what is more than
can be read, the rest is counted. A place is text that a browser brings back, and is believed only as far as the journal
has it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Final

from policyd.audit.read import Follower, Position
from policyd.audit.record import change_of
from policyd.console.desk import Desk, part
from policyd.console.live import event
from policyd.console.source import passed_over
from policyd.console.wanted import holds
from policyd.errors import UsageError

if TYPE_CHECKING:
    from policyd.audit.ask.filters import Filter
    from policyd.audit.record import Record

POLL_SECONDS: Final = 0.4
POLL_BYTES: Final = 1 << 20
AT_ONCE: Final = 25  # records of one event; what came beside them is counted
MOST: Final = 300  # of the first event: as many as a page keeps
LOOKED: Final = 20_000  # records that are looked through for what was missed
PASSED_POLLS: Final = 25  # after which a page is told the place, though nothing came for it
MAX_PLACE: Final = 4_000  # characters
_PLACE: Final = re.compile(r"(?P<writer>[a-z0-9-]{1,64}):(?P<first>[0-9]{1,20}):(?P<offset>[0-9]{1,20})", re.ASCII)

Place = Mapping[str, Position]  # of each writer


def text_of(place: Place) -> str:
    """A place as a browser keeps it."""
    return ",".join(f"{writer}:{one.first_seq}:{one.offset}" for writer, one in sorted(place.items()))


def place_of(text: str) -> Place:
    """Read a place; raises UsageError. An empty one is the beginning."""
    parts = [_PLACE.fullmatch(one) for one in text.split(",")] if 0 < len(text) <= MAX_PLACE else []
    if text and not (parts and all(parts)):
        raise UsageError(f"`{text[:40]}` is no place in a journal", remedy="open the page anew")
    return {one["writer"]: Position(int(one["first"]), int(one["offset"])) for one in parts if one}


@dataclass(frozen=True, slots=True)
class Missed:
    """What came between two places: the newest of it, the newest first, and how many more."""

    records: list[Record]
    more: int
    is_all: bool  # else nobody looked further back
    until: Place

    @property
    def count(self) -> int:
        """How many came, at least."""
        return len(self.records) + self.more


def missed(desk: Desk, wanted: Filter, since: Place | None, looked: int = LOOKED) -> Missed:
    """What came since a place and matches; since now where there is none."""
    until = desk.source.ends()
    if since is None:
        return Missed([], 0, True, until)
    known = {writer: min(since[writer], one) for writer, one in until.items() if writer in since}
    lines = desk.source.back(until, known)
    found = [line.record for line in islice(lines, looked) if holds(wanted, line.record)]
    return Missed(found[:MOST], len(found[MOST:]), next(lines, None) is None, until)


async def coming(desk: Desk, wanted: Filter, since: Place | None) -> AsyncIterator[bytes]:
    """The rows that a page is to show; each event has the place up to which the page then is."""
    first = await desk.ask(missed, desk, wanted, since)
    if first.more or not first.is_all:
        yield event("omitted", _number(first.more, is_all=first.is_all))
    if first.records:
        yield _rows(first.records, first.until)
    follower, told = _follower(desk, first.until), dict(first.until)
    for polls in count(1):
        found = await _poll(desk, wanted, follower)
        if found:
            chosen = _chosen(found)
            if len(chosen) < len(found):
                yield event("omitted", str(len(found) - len(chosen)))
            yield _rows(chosen[::-1], follower.positions)
            told = dict(follower.positions)
        elif polls % PASSED_POLLS == 0 and told != follower.positions:
            yield event("passed", "", text_of(follower.positions))
            told = dict(follower.positions)
        await asyncio.sleep(POLL_SECONDS)


async def counted(desk: Desk, wanted: Filter, since: Place | None) -> AsyncIterator[bytes]:
    """How many there are that a page does not show, as they become more; the page stays where it is."""
    first = await desk.ask(missed, desk, wanted, since)
    total, said, follower = first.count, 0, _follower(desk, first.until)
    while True:
        if total != said:
            yield event("missed", _number(total, is_all=first.is_all))
            said = total
        await asyncio.sleep(POLL_SECONDS)
        total += len(await _poll(desk, wanted, follower))


def _follower(desk: Desk, since: Place) -> Follower:
    return Follower(desk.source.journal, dict(since), passed_over, budget=POLL_BYTES)


async def _poll(desk: Desk, wanted: Filter, follower: Follower) -> list[Record]:
    if not desk.source.journal.is_dir():
        return []
    return [line.record for line in await desk.ask(follower.poll) if holds(wanted, line.record)]


def _rows(records: list[Record], place: Place) -> bytes:
    changes = {one.decision_id: change_of(one) for one in records}
    return event("decisions", part("decision_rows.html", records=records, changes=changes), text_of(place))


def _number(number: int, *, is_all: bool) -> str:
    """A count; with a plus where there may be more."""
    return str(number) if is_all else f"{number}+"


def _chosen(found: list[Record]) -> list[Record]:
    """So many as can be read: denials before others, in their order."""
    if len(found) <= AT_ONCE:
        return found
    ranked = sorted(range(len(found)), key=lambda at: (found[at].decision == "allow", -at))[:AT_ONCE]
    return [found[at] for at in sorted(ranked)]
