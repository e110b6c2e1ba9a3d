"""What an Envoy tells of its own decisions: taken, spooled, sent in order, and what is lost is said."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from policyd._pb import agent_pb2
from policyd.errors import IssuanceDenied
from proxy.control import Control, Unreachable
from proxy.decided import (
    CRASHED,
    FULL,
    KILLED,
    NOT_TOLD,
    SILENT,
    SPOILED,
    UNASKED,
    Decided,
)
from proxy.forwarding import AWAY, Forwarding
from proxy.outside import Outside
from proxy.pipe import CATCH_UP, LOOK, MAX_LINE, PIPE_BYTES, Pipe
from proxy.spool import Spool
from proxy.tally import Look, Tally, parse


class Policyd:
    """What is kept, as policyd does; away while `away`."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0
        self.batches: list[agent_pb2.Batch] = []

    async def keep(self, batch: agent_pb2.Batch) -> int:
        self.asked += 1
        if self.away:
            raise Unreachable("policyd does not answer")
        self.batches.append(batch)
        return batch.seq + len(batch.told) - 1

    @property
    def told(self) -> list[tuple[bytes, int, str]]:
        return [(one.lines, one.lost, one.why) for batch in self.batches for one in batch.told]

    @property
    def as_control(self) -> Control:
        return cast("Control", self)


async def _at_once(_: float) -> None:
    await asyncio.sleep(0)


OUTSIDE = Outside(say=lambda *_args, **_facts: None, sleep=_at_once)


def decided(folder: Path, max_bytes: int = 1 << 20) -> Decided:
    return Decided("shop-v1", lambda: Spool(folder, max_bytes), OUTSIDE, lambda: None)


def waiting(one: Decided) -> list[tuple[bytes, int, str]]:
    assert one.spool is not None
    found = map(agent_pb2.Told.FromString, one.spool.read(1 << 30)[1])
    return [(told.lines, told.lost, told.why) for told in found]


def test_nothing_is_on_disk_until_something_is_told(tmp_path: Path) -> None:
    one = decided(tmp_path / "s")

    assert not (tmp_path / "s").exists()
    one.take(b"log", 3)
    assert (one.arrived, waiting(one)) == (3, [(b"log", 0, "")])


def test_what_a_full_spool_refuses_is_said_when_there_is_room(tmp_path: Path) -> None:
    one = decided(tmp_path / "s", 120)
    one.take(b"a" * 80, 2)
    one.take(b"b" * 80, 3)
    one.take(b"c" * 80, 4)
    assert one.spool is not None
    one.spool.kept(1)

    one.take(b"d", 1)

    assert (one.arrived, waiting(one)) == (10, [(b"", 7, FULL), (b"d", 0, "")])


def test_of_an_envoy_that_ended_by_itself_it_is_said_once_and_another_one_counts_anew(tmp_path: Path) -> None:
    one = decided(tmp_path / "s")
    one.fresh()
    one.crashed()
    one.fresh()
    one.take(b"a", 2)
    one.crashed()
    one.fresh()

    assert (one.process, one.arrived) == (3, 0)
    assert waiting(one) == [(b"a", 0, ""), (b"", 0, CRASHED)]


@pytest.mark.parametrize(
    ("look", "told", "said", "missing"),
    [
        (Look(10, 0), 10, 0, 0),
        (Look(10, 0), 8, 0, 2),
        (Look(10, 0), 8, 2, 0),
        (Look(10, 2), 8, 0, 0),  # under way at the look: told when they end
        (Look(10, 0), 15, 0, 0),  # some came since
    ],
)
def test_only_what_had_ended_and_is_not_told_is_missing(look: Look, told: int, said: int, missing: int) -> None:
    assert look.missing(told, said) == missing


def test_the_counters_of_an_envoy_are_read() -> None:
    page = "http.inbound.rbac.allowed: 7\nhttp.inbound.rbac.denied: 3\nhttp.inbound.downstream_rq_active: 2\nx: 9\n"

    assert (parse(page, 4), parse("")) == (Look(10, 2, 4), Look(0, 0))


async def test_what_waits_is_sent_in_order_and_again_until_policyd_has_it(tmp_path: Path) -> None:
    forwarding, policyd = Forwarding(tmp_path, OUTSIDE), Policyd()
    policyd.away = True
    one = forwarding.of("shop-v1")
    running = asyncio.create_task(forwarding.run(policyd.as_control))
    for number in range(5):
        one.take(b"%d" % number, 1)
    async with asyncio.timeout(60):
        while policyd.asked < AWAY - 1:
            await asyncio.sleep(0)
        assert (policyd.batches, forwarding.waiting(), one.away) == ([], 5, False)
        while policyd.asked < AWAY:
            await asyncio.sleep(0)
        assert one.away
        policyd.away = False
        while forwarding.waiting():
            await asyncio.sleep(0)
        one.take(b"later", 1)
        while forwarding.waiting():
            await asyncio.sleep(0)
    running.cancel()

    assert not one.away
    assert [logged for logged, _, _ in policyd.told] == [b"0", b"1", b"2", b"3", b"4", b"later"]
    assert policyd.batches[0].seq == 1
    assert one.spool is not None
    assert {(batch.instance, batch.spool) for batch in policyd.batches} == {("shop-v1", one.spool.name)}


async def test_an_ending_agent_sends_the_rest_and_the_next_one_what_stays(tmp_path: Path) -> None:
    first, policyd = Forwarding(tmp_path, OUTSIDE), Policyd()
    first.of("shop-v1").take(b"a", 1)
    policyd.away = True
    await first.finish(policyd.as_control)
    policyd.away = False

    second = Forwarding(tmp_path, OUTSIDE)
    await second.finish(policyd.as_control)

    assert policyd.told == [(b"a", 0, "")]


async def test_an_instance_that_policyd_refuses_holds_up_no_other(tmp_path: Path) -> None:
    class Refusing(Policyd):
        async def keep(self, batch: agent_pb2.Batch) -> int:
            if batch.instance == "gone-v1":
                raise IssuanceDenied("it runs elsewhere")
            return await super().keep(batch)

    forwarding, policyd = Forwarding(tmp_path, OUTSIDE), Refusing()
    forwarding.of("gone-v1").take(b"a", 1)
    forwarding.of("shop-v1").take(b"b", 1)

    await forwarding.finish(policyd.as_control)

    assert policyd.told == [(b"b", 0, "")]
    assert forwarding.waiting() == 1


async def test_what_the_disk_does_not_give_back_is_said_and_holds_up_nothing(tmp_path: Path) -> None:
    forwarding, policyd = Forwarding(tmp_path, OUTSIDE), Policyd()
    one = forwarding.of("shop-v1")
    one.take(b"a", 1)
    [segment] = tmp_path.glob("*/*.told")
    segment.write_bytes(b"")
    one.take(b"b", 1)

    await forwarding.finish(policyd.as_control)

    assert policyd.told == [(b"b", 0, ""), (b"", 0, SPOILED)]


async def test_a_file_of_others_in_a_spool_is_told_and_nothing_else_is_lost_by_it(tmp_path: Path) -> None:
    first, policyd = Forwarding(tmp_path, OUTSIDE), Policyd()
    first.of("shop-v1").take(b"a", 1)
    [segment] = tmp_path.glob("*/*.told")
    stranger = segment.with_name("abc.told")
    stranger.write_text("mine")
    said: list[tuple[str, dict[str, object]]] = []

    second = Forwarding(tmp_path, Outside(say=lambda event, **facts: said.append((event, facts)), sleep=_at_once))
    await second.finish(policyd.as_control)

    assert said == [("agent.spool_foreign", {"instance": "shop-v1", "file": str(stranger)})]
    assert policyd.told == [(b"a", 0, ""), (b"", 0, KILLED)]
    assert stranger.read_text() == "mine"


@pytest.mark.parametrize("away", [True, False])
async def test_an_ending_agent_says_what_was_lost_though_there_was_no_room_for_it(tmp_path: Path, away: bool) -> None:
    first, policyd = Forwarding(tmp_path, OUTSIDE, max_bytes=120), Policyd()
    one = first.of("shop-v1")
    one.take(b"a" * 80, 1)
    one.take(b"b" * 80, 3)
    policyd.away = away
    await first.finish(policyd.as_control)
    if away:
        policyd.away = False
        await Forwarding(tmp_path, OUTSIDE).finish(policyd.as_control)

    assert policyd.told == [(b"a" * 80, 0, ""), (b"", 3, FULL)]


@pytest.mark.parametrize("told", [0, 1])
async def test_an_agent_that_was_killed_leaves_a_gap_which_the_next_one_says_once(tmp_path: Path, told: int) -> None:
    killed = Forwarding(tmp_path, OUTSIDE)
    killed.of("shop-v1").take(b"a", 1)
    policyd = Policyd()
    for _ in range(2):  # the second one has nothing to add
        again = Forwarding(tmp_path, OUTSIDE)
        await again._send(policyd.as_control)
    if told:
        again.of("shop-v1").take(b"b", 1)
    await again.finish(policyd.as_control)
    await Forwarding(tmp_path, OUTSIDE).finish(policyd.as_control)

    frames = {batch.seq + at: one for batch in policyd.batches for at, one in enumerate(batch.told)}  # as policyd keeps
    found = [(one.lines, one.lost, one.why) for _, one in sorted(frames.items())]
    assert found == [(b"a", 0, ""), (b"", 0, KILLED), *[(b"b", 0, "")] * told]


def test_of_an_agent_that_was_killed_the_gap_is_not_forgotten_while_it_cannot_be_said(tmp_path: Path) -> None:
    decided(tmp_path / "s", 200).take(b"a" * 150, 1)
    for _ in range(2):  # the spool is full, and the second one is killed as well
        again = decided(tmp_path / "s", 200)
        again.left(Spool(tmp_path / "s", 200))
    assert again.spool is not None
    again.spool.kept(1)

    again.take(b"b", 1)

    assert waiting(again) == [(b"", 0, KILLED), (b"b", 0, "")]


ENDS: dict[str, tuple[Callable[[Decided], object], list[str]]] = {
    "in order": (lambda one: one.ended(1), []),
    "in order, and not all was told": (lambda one: one.ended(3), [NOT_TOLD]),
    "in order, and it did not say how many there are": (lambda one: one.ended(None), [UNASKED]),
    "by itself": (lambda one: one.crashed(), [CRASHED]),
    "by itself and for good": (lambda one: (one.crashed(), one.ended(None)), [CRASHED]),
    "in order before another": (lambda one: (one.ended(1), one.fresh(), one.take(b"b", 1)), [KILLED]),
    "by itself before another": (lambda one: (one.crashed(), one.fresh(), one.take(b"b", 1)), [CRASHED, KILLED]),
    "not at all": (lambda _: None, [KILLED]),
}


@pytest.mark.parametrize(("ends", "said"), ENDS.values(), ids=ENDS)
def test_an_agent_that_is_killed_leaves_a_gap_of_the_envoys_that_might_have_told_more(
    tmp_path: Path, ends: Callable[[Decided], object], said: list[str]
) -> None:
    one = decided(tmp_path / "s")
    one.fresh()
    one.take(b"a", 1)
    ends(one)

    again = decided(tmp_path / "s")
    again.left(Spool(tmp_path / "s"))

    assert [why for _, _, why in waiting(again) if why] == said


def test_what_an_envoy_may_not_have_told_stays_marked_until_it_is_said(tmp_path: Path) -> None:
    one = decided(tmp_path / "s", 120)
    one.take(b"a" * 80, 1)
    one.take(b"b" * 80, 3)  # too much, and no room to say so
    one.ended(4)

    assert Spool(tmp_path / "s").was_cut


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_an_envoy_writes_lines_which_go_on_whole_however_they_come(tmp_path: Path) -> None:
    one, path = decided(tmp_path / "s"), tmp_path / "pipe"
    pipe = Pipe(path, one)
    pipe.open()
    assert (stat.S_ISFIFO(path.stat().st_mode), stat.S_IMODE(path.stat().st_mode)) == (True, 0o600)
    for text, arrived in (("a\nb", 1), ("", 1), ("c", 1), ("d\ne\nf\n", 4)):
        with path.open("w") as envoy:
            envoy.write(text)
        await until(lambda arrived=arrived: one.arrived == arrived)  # type: ignore[misc]
    pipe.close()

    assert (waiting(one), path.exists()) == ([(b"a\n", 0, ""), (b"bcd\ne\nf\n", 0, "")], False)


async def test_of_an_envoy_that_ended_all_is_taken_but_a_line_that_it_did_not_end(tmp_path: Path) -> None:
    one, path = decided(tmp_path / "s"), tmp_path / "pipe"
    pipe = Pipe(path, one)
    pipe.open()
    with path.open("wb") as envoy:
        envoy.write(b"a" * 500_000 + b"\ntorn")
        pipe.ended()
    with path.open("wb") as envoy:
        envoy.write(b"b\nc\nleft")
    pipe.close()
    pipe.close()  # once more, as at the end of one that never opened

    assert [(len(lines), lines[-4:]) for lines, _, _ in waiting(one)] == [(500_001, b"aaa\n"), (4, b"b\nc\n")]


async def test_what_nobody_reads_waits_in_the_pipe_and_an_earlier_one_is_replaced(tmp_path: Path) -> None:
    one, path = decided(tmp_path / "s"), tmp_path / "pipe"
    path.write_text("of an agent that was killed")
    pipe = Pipe(path, one)
    pipe.open()
    writing = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    written = 0
    with suppress(BlockingIOError):
        while written < 1 << 21:
            written += os.write(writing, b"x" * 1023 + b"\n")
    os.close(writing)

    await until(lambda: one.arrived * 1024 == written)
    pipe.close()


class Narrow:
    """An Envoy that has told more than goes into the spool of its agent, at whose clock `now` is."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.one = decided(folder / "s", 1000)
        self.one.fresh()
        self.one.take(b"x" * 599 + b"\n", 1)
        self.pipe = Pipe(folder / "pipe", self.one, lambda: self.now)
        self.pipe.open()
        self._told = (folder / "pipe").open("wb", buffering=0)

    def tell(self) -> None:
        self._told.write(b"y" * 599 + b"\n")

    def take(self) -> None:
        """Policyd has all that is in the spool."""
        assert self.one.spool is not None
        self.one.spool.kept(1 << 62)

    async def looks(self) -> None:
        """Let the pipe be looked at, several times."""
        await asyncio.sleep(LOOK * 5)

    def close(self) -> None:
        self.pipe.close()
        self._told.close()


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[Narrow]:
    made = Narrow(tmp_path)
    yield made
    made.close()


async def test_what_is_told_is_read_as_policyd_takes_it(narrow: Narrow) -> None:
    narrow.tell()
    await narrow.looks()
    assert (narrow.one.arrived, narrow.one.held) == (1, True)

    narrow.take()
    await until(lambda: narrow.one.arrived == 2)
    assert waiting(narrow.one) == [(b"y" * 599 + b"\n", 0, "")]


async def test_where_policyd_takes_nothing_the_bound_of_the_spool_is_what_counts(narrow: Narrow) -> None:
    narrow.one.away = True
    narrow.tell()

    await until(lambda: narrow.one.arrived == 2)
    assert waiting(narrow.one)[1:] == [(b"", 1, FULL)]


async def test_who_tells_more_than_policyd_takes_waits_for_a_while_and_again_once_it_has_caught_up(
    narrow: Narrow,
) -> None:
    narrow.tell()
    await narrow.looks()
    narrow.now += CATCH_UP
    await until(lambda: narrow.one.arrived == 2)

    narrow.take()
    narrow.tell()  # into a spool that is empty: it has caught up
    await until(lambda: narrow.one.arrived == 3)
    narrow.tell()
    await narrow.looks()
    assert narrow.one.arrived == 3


async def test_an_envoy_that_is_about_to_end_waits_for_nothing(narrow: Narrow) -> None:
    narrow.tell()
    await narrow.looks()
    narrow.pipe.hurry()

    await until(lambda: narrow.one.arrived == 2)


async def test_what_is_told_and_not_read_is_no_gap(tmp_path: Path) -> None:
    one, socket = decided(tmp_path / "s"), tmp_path / "admin.sock"
    one.fresh()
    one.take(b"log", 5)

    async def sleep(_: float) -> None:
        one.held = True

    outside = Outside(say=lambda *_args, **_facts: None, sleep=sleep)
    async with await asyncio.start_unix_server(Counting(), socket):
        await Tally(lambda: {"shop-v1": (one, socket)}, outside).compare()

    assert waiting(one) == [(b"log", 0, "")]


async def test_a_line_longer_than_any_is_not_kept_for_its_end(tmp_path: Path) -> None:
    one, path = decided(tmp_path / "s", 8 << 20), tmp_path / "pipe"
    pipe = Pipe(path, one)
    pipe.open()

    def write() -> None:
        with path.open("wb") as envoy:
            envoy.write(b"x" * (MAX_LINE + PIPE_BYTES))
            envoy.write(b"\nok\n")

    await asyncio.to_thread(write)
    await until(lambda: one.arrived == 2)
    pipe.close()

    assert sum(len(lines) for lines, _, _ in waiting(one)) <= PIPE_BYTES


class Counting:
    """The administration of an Envoy that has counted ten decisions, two of them of requests that are under way."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        page = b"http.inbound.rbac.allowed: 9\nhttp.inbound.rbac.denied: 1\nhttp.inbound.downstream_rq_active: 2\n"
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + page)
        await writer.drain()
        writer.close()


async def test_what_envoy_counted_and_did_not_tell_is_a_gap_that_is_said_once(tmp_path: Path) -> None:
    one, silent = decided(tmp_path / "s"), decided(tmp_path / "t")
    one.fresh()
    one.take(b"log", 5)
    socket = tmp_path / "admin.sock"
    tally = Tally(lambda: {"shop-v1": (one, socket), "web-v1": (silent, tmp_path / "nobody.sock")}, OUTSIDE)
    async with await asyncio.start_unix_server(Counting(), socket):
        await tally.compare()
        await tally.compare()

    assert waiting(one) == [(b"log", 0, ""), (b"", 3, NOT_TOLD)]
    assert silent.spool is None


NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
Rounds = Iterator[list[datetime]]  # in each, when requests ended that are told then


def ended(moments: list[datetime]) -> bytes:
    """What an Envoy writes of requests that took a second and ended at these moments."""
    return b"".join(b"%d\x1f1000\x1fid\n" % (round(one.timestamp() * 1_000_000) - 1_000_000) for one in moments)


class Busy:
    """The world of an agent whose Envoy tells of requests without a pause; its clock may be set meanwhile."""

    def __init__(self, one: Decided, rounds: Rounds, set_: timedelta = timedelta(0)) -> None:
        self._one = one
        self._rounds = rounds
        self._set = set_
        self._now = NOON

    async def sleep(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds) + self._set
        moments = next(self._rounds, [])

        if moments:
            self._one.take(ended(moments), len(moments))

    @property
    def outside(self) -> Outside:
        return Outside(
            say=lambda *_args, **_facts: None,
            sleep=self.sleep,
            clock=lambda: self._now,
            monotonic=lambda: (self._now - NOON).total_seconds() if not self._set else 0.0,
        )


BEFORE, NEARLY_AFTER, AFTER = (NOON + timedelta(seconds=one) for one in (-1, 0.25, 2))


@pytest.mark.parametrize(
    ("rounds", "set_", "missing"),
    [
        ([[AFTER] * 9] * 9, 0, 3),  # under load as many come as could hide a gap
        ([[NEARLY_AFTER, NEARLY_AFTER, BEFORE]] + [[AFTER]] * 9, 0, 2),  # one of them was late
        ([[AFTER], [BEFORE, BEFORE, BEFORE, AFTER], [AFTER]], 0, 0),  # all of them were
        ([[AFTER], [BEFORE, AFTER], [AFTER, AFTER], [AFTER]], 0, 2),
        ([[]] * 9, 0, 3),
        ([[AFTER] * 9] * 9, 1, 0),  # the clock was set: nobody knows what was before
    ],
)
async def test_a_gap_is_seen_under_steady_load_too(
    tmp_path: Path, rounds: list[list[datetime]], set_: int, missing: int
) -> None:
    one, socket = decided(tmp_path / "s"), tmp_path / "admin.sock"
    one.take(b"log", 5)
    busy = Busy(one, iter(rounds), timedelta(seconds=set_))
    tally = Tally(lambda: {"shop-v1": (one, socket)}, busy.outside)

    async with await asyncio.start_unix_server(Counting(), socket):
        await tally.compare()

    assert [(lost, why) for _, lost, why in waiting(one) if why] == ([(missing, NOT_TOLD)] if missing else [])


async def test_what_still_comes_at_the_last_look_is_no_gap_and_hides_none_of_another(tmp_path: Path) -> None:
    """As of an agent whose disk takes a little at a time: none of it is missing, it is only late."""
    slow, other, socket = decided(tmp_path / "s"), decided(tmp_path / "t"), tmp_path / "admin.sock"
    slow.take(ended([BEFORE]), 1)
    other.take(b"log", 5)
    busy = Busy(slow, iter([[BEFORE]] * 7))
    places = {"shop-v1": (slow, socket), "web-v1": (other, socket)}
    tally = Tally(lambda: places, busy.outside)

    async with await asyncio.start_unix_server(Counting(), socket):
        await tally.compare()
        assert [waiting(one)[-1][1:] for one in (slow, other)] == [(0, ""), (3, NOT_TOLD)]
        await tally.compare()
        assert (slow.arrived, slow.missed) == (8, 0)  # all that had ended came, and it is looked at as before
        slow.fresh()
        slow.take(b"log", 5)
        await tally.compare()

    assert waiting(slow)[-1][1:] == (3, NOT_TOLD)


async def test_an_envoy_that_counts_decisions_and_tells_none_is_silent(tmp_path: Path) -> None:
    """As one that is older than its counters' names, and leaves no metadata for the log to go by."""
    one, socket = decided(tmp_path / "s"), tmp_path / "admin.sock"
    tally = Tally(lambda: {"shop-v1": (one, socket)}, OUTSIDE)
    async with await asyncio.start_unix_server(Counting(), socket):
        await tally.compare()
        one.take(b"log", 9)
        one.lose(1, FULL)

    assert one.spool is not None
    told = [agent_pb2.Told.FromString(body) for body in one.spool.read(1 << 30)[1]]
    assert [(one.lost, one.why, one.silent) for one in told] == [(8, SILENT, True), (0, "", False), (1, FULL, False)]
