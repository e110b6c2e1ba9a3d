"""A crash of policyd between a batch and the note of how far its spool is on record: nothing is there twice."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from msgspec.structs import replace

from policyd._pb import agent_pb2
from policyd.audit.journal import Durability, Journal
from policyd.audit.read import Line
from policyd.audit.record import Record
from policyd.audit.stencil import Own
from policyd.audit.verify import verify
from policyd.authz.ruling import Ruling
from policyd.names import RULE_INCOMPLETE
from policyd.server.on_record import OnRecord, lines_so_far
from tests.audit.samples import WRITER, an_entry, records
from tests.authz.lines import line
from tests.server.test_local_decisions import NOW, Desk, ruling

__all__ = ["ruling"]  # a fixture


class World:
    """A server with a journal and the note of places in a folder; it ends, by a crash or not, when the next starts."""

    def __init__(self, ruling: Ruling, folder: Path, durability: Durability) -> None:
        self.folder, self.ruling, self.durability = folder, ruling, durability
        self.note = folder / "spools.json"
        self.journal = self._opened()
        self.start()

    def _opened(self) -> Journal:
        return Journal(self.folder / "journal", WRITER, lambda: NOW, durability=self.durability)

    def start(self) -> None:
        self.journal.close()
        self.journal = self._opened()
        self.desk = Desk(self.ruling, self.folder, self.journal)

    def crash(self, cut: int = 0) -> None:
        """As one before the place was noted, which has written all but the last bytes of the batch."""
        self.journal.close()
        self.note.unlink()
        [segment] = (self.folder / "journal").glob("*.jsonl")
        segment.write_bytes(segment.read_bytes()[: -cut or None])
        self.start()

    def told(self, *numbers: int) -> agent_pb2.Told:
        """A message of the decisions with these numbers."""
        return self.desk.told(*(line(self.ruling.revision, decision_id=name(number)) for number in numbers))

    def decided(self) -> list[str]:
        return [one.decision_id for one in self.records() if one.kind == "decision"]

    def said(self) -> list[tuple[object, object]]:
        return [(one.detail["lost"], one.detail["message"]) for one in self.records() if "lost" in one.detail]

    def records(self) -> list[Record]:
        self.journal.close()
        assert verify(self.folder / "journal").problems == ()
        return records(self.folder / "journal")


def name(number: int) -> str:
    return str(UUID(int=number))


LOST = agent_pb2.Told(lost=7, why="the agent's spool is full")


@pytest.mark.parametrize("durability", ["written", "fsync", "async"])
async def test_a_batch_whose_place_was_not_noted_is_not_put_on_record_again(
    ruling: Ruling, tmp_path: Path, durability: Durability
) -> None:
    world = World(ruling, tmp_path, durability)
    batch = [world.told(1, 2), LOST, world.told(3)]
    assert await world.desk.say(1, *batch) == 3
    world.crash()

    assert await world.desk.say(1, *batch, world.told(4), LOST) == 5
    assert world.decided() == [name(number) for number in (1, 2, 3, 4)]
    assert world.said() == [(7, 2), (7, 5)]


@pytest.mark.parametrize("cut", [1, 700, 1400, 2100])
async def test_of_a_batch_that_was_torn_the_rest_is_put_on_record(ruling: Ruling, tmp_path: Path, cut: int) -> None:
    world = World(ruling, tmp_path, "written")
    batch = [world.told(*range(1, 6)), LOST, world.told(6)]
    await world.desk.say(1, *batch)
    world.crash(cut)

    assert await world.desk.say(1, *batch) == 3
    assert Counter(world.decided()) == Counter(name(number) for number in range(1, 7))
    assert world.said() == [(7, 2)]


async def test_it_comes_no_more_after_several_starts_and_batches_of_others(ruling: Ruling, tmp_path: Path) -> None:
    world = World(ruling, tmp_path, "written")
    await world.desk.say(1, world.told(1))
    world.crash()
    await world.desk.say(1, world.told(2), spool="b")
    world.start()

    assert await world.desk.say(1, world.told(1)) == 1
    assert world.decided() == [name(1), name(2)]


async def test_what_is_not_on_record_again_counts_and_falls_back_all_the_same(ruling: Ruling, tmp_path: Path) -> None:
    world, revision = World(ruling, tmp_path, "written"), ruling.revision
    other = world.desk.told(line(revision, central={"decision": "deny", "policy": "blue", "revision": revision}))
    await world.desk.say(1, other)
    before = world.desk
    world.crash()
    await world.desk.say(1, other)

    assert (world.desk.counts.decided, world.desk.distrusted) == (before.counts.decided, before.distrusted)
    assert [one.kind for one in world.records()] == ["decision", "operation"]


# what an Envoy decides, and what it refuses because nobody can decide it
@pytest.mark.parametrize("changes", [{}, {"result": "denied", "rule": RULE_INCOMPLETE, "method": ""}])
async def test_no_agent_keeps_a_decision_of_another_off_the_record(
    ruling: Ruling, tmp_path: Path, changes: dict[str, str]
) -> None:
    """Whoever is denied reads the id of the decision, and its agent may tell it as one of its own, and sooner."""
    world = World(ruling, tmp_path, "written")
    world.desk.runs = {"reviews-v1", "reviews-v2"}
    stolen = line(ruling.revision, decision_id=name(1), listener="reviews-v2/inbound", **changes)
    await world.desk.say(1, world.desk.told(stolen), instance="reviews-v2", spool="t")
    world.start()

    await world.desk.say(1, world.desk.told(line(ruling.revision, decision_id=name(1), **changes)))
    kept = [(one.proxy, one.decision_id) for one in world.records()]
    assert kept == [("reviews-v2", name(1)), ("reviews-v1", name(1))]


def test_a_disk_that_does_not_give_the_journal_back_holds_up_no_record(tmp_path: Path) -> None:
    """What was read counts, and the rest may come twice: that is said, and better than never."""
    journal = Journal(tmp_path, WRITER, lambda: NOW)
    read, unread = (replace(an_entry(decision_id=name(one)), detail={}, decided_by="proxy") for one in (1, 2))
    for entry in (unread, read):
        journal.append(entry)
    lines = lines_so_far(tmp_path, WRITER)

    def broken() -> Iterator[Line]:
        yield next(lines())
        raise OSError(errno.EIO, "input/output error")

    told = [(journal.stencil(one), Own(0, one.decision_id)) for one in (read, unread)]
    assert [own.decision_id for _, own in OnRecord(broken).new_of(told)] == [name(2)]
    assert OnRecord(lines).new_of(told) == []
    journal.close()


def test_what_comes_after_the_start_is_not_what_was_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path, WRITER, lambda: NOW)
    journal.append(an_entry(request_id="before"))
    lines = lines_so_far(tmp_path, WRITER)
    journal.append(an_entry(request_id="after"))
    journal.close()

    assert [one.record.request_id for one in lines()] == ["before"]
