"""What an Envoy tells of its own decisions: taken, spooled, sent in order, and what is lost is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from policyd._pb import agent_pb2
from policyd.envoy_api import shared
from policyd.names import METADATA_TOKENS
from proxy.control import Control, Unreachable
from proxy.decided import (
    CRASHED,
    DROPPED,
    FULL,
    KILLED,
    METHOD,
    NOT_TOLD,
    SERVICE,
    SILENT,
    UNASKED,
    Decided,
    Listening,
    ended_at,
)
from proxy.forwarding import Forwarding
from proxy.outside import Outside
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
    def told(self) -> list[tuple[str, bytes, int, str]]:
        return [(one.listener, one.logged, one.lost, one.why) for batch in self.batches for one in batch.told]

    @property
    def as_control(self) -> Control:
        return cast("Control", self)


async def _at_once(_: float) -> None:
    await asyncio.sleep(0)


OUTSIDE = Outside(say=lambda *_args, **_facts: None, sleep=_at_once)


def decided(folder: Path, max_bytes: int = 1 << 20) -> Decided:
    return Decided("shop-v1", lambda: Spool(folder, max_bytes), OUTSIDE, lambda: None)


def waiting(one: Decided) -> list[tuple[str, bytes, int, str]]:
    assert one.spool is not None
    found = map(agent_pb2.Told.FromString, one.spool.read(1 << 30)[1])
    return [(told.listener, told.logged, told.lost, told.why) for told in found]


def test_nothing_is_on_disk_until_something_is_told(tmp_path: Path) -> None:
    one = decided(tmp_path / "s")

    assert not (tmp_path / "s").exists()
    one.take("shop-v1/inbound", b"log", 3)
    assert (one.arrived, waiting(one)) == (3, [("shop-v1/inbound", b"log", 0, "")])


def test_what_a_full_spool_refuses_is_said_when_there_is_room(tmp_path: Path) -> None:
    one = decided(tmp_path / "s", 120)
    one.take("l", b"a" * 80, 2)
    one.take("l", b"b" * 80, 3)
    one.take("l", b"c" * 80, 4)
    assert one.spool is not None
    one.spool.kept(1)

    one.take("l", b"d", 1)

    assert (one.arrived, waiting(one)) == (10, [("", b"", 7, FULL), ("l", b"d", 0, "")])


def test_of_an_envoy_that_ended_by_itself_it_is_said_once_and_another_one_counts_anew(tmp_path: Path) -> None:
    one = decided(tmp_path / "s")
    one.fresh()
    one.crashed()
    one.fresh()
    one.take("l", b"a", 2)
    one.crashed()
    one.fresh()

    assert (one.process, one.arrived) == (3, 0)
    assert waiting(one) == [("l", b"a", 0, ""), ("", b"", 0, CRASHED)]


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
    page += "access_logs.grpc_access_log.logs_dropped: 6\n"

    assert (parse(page, 4), parse("")) == (Look(10, 2, 4, 6), Look(0, 0))


async def test_what_waits_is_sent_in_order_and_again_until_policyd_has_it(tmp_path: Path) -> None:
    forwarding, policyd = Forwarding(tmp_path, OUTSIDE), Policyd()
    policyd.away = True
    one = forwarding.of("shop-v1")
    running = asyncio.create_task(forwarding.run(policyd.as_control))
    for number in range(5):
        one.take("l", b"%d" % number, 1)
    async with asyncio.timeout(60):
        while policyd.asked < 3:
            await asyncio.sleep(0)
        assert (policyd.batches, forwarding.waiting()) == ([], 5)
        policyd.away = False
        while forwarding.waiting():
            await asyncio.sleep(0)
        one.take("l", b"later", 1)
        while forwarding.waiting():
            await asyncio.sleep(0)
    running.cancel()

    assert [logged for _, logged, _, _ in policyd.told] == [b"0", b"1", b"2", b"3", b"4", b"later"]
    assert policyd.batches[0].seq == 1
    assert one.spool is not None
    assert {(batch.instance, batch.spool) for batch in policyd.batches} == {("shop-v1", one.spool.name)}


async def test_an_ending_agent_sends_the_rest_and_the_next_one_what_stays(tmp_path: Path) -> None:
    first, policyd = Forwarding(tmp_path, OUTSIDE), Policyd()
    first.of("shop-v1").take("l", b"a", 1)
    policyd.away = True
    await first.finish(policyd.as_control)
    policyd.away = False

    second = Forwarding(tmp_path, OUTSIDE)
    await second.finish(policyd.as_control)

    assert policyd.told == [("l", b"a", 0, "")]


async def test_a_file_of_others_in_a_spool_is_told_and_nothing_else_is_lost_by_it(tmp_path: Path) -> None:
    first, policyd = Forwarding(tmp_path, OUTSIDE), Policyd()
    first.of("shop-v1").take("l", b"a", 1)
    [segment] = tmp_path.glob("*/*.told")
    stranger = segment.with_name("abc.told")
    stranger.write_text("mine")
    said: list[tuple[str, dict[str, object]]] = []

    second = Forwarding(tmp_path, Outside(say=lambda event, **facts: said.append((event, facts)), sleep=_at_once))
    await second.finish(policyd.as_control)

    assert said == [("agent.spool_foreign", {"instance": "shop-v1", "file": str(stranger)})]
    assert policyd.told == [("l", b"a", 0, ""), ("", b"", 0, KILLED)]
    assert stranger.read_text() == "mine"


@pytest.mark.parametrize("away", [True, False])
async def test_an_ending_agent_says_what_was_lost_though_there_was_no_room_for_it(tmp_path: Path, away: bool) -> None:
    first, policyd = Forwarding(tmp_path, OUTSIDE, max_bytes=120), Policyd()
    one = first.of("shop-v1")
    one.take("l", b"a" * 80, 1)
    one.take("l", b"b" * 80, 3)
    policyd.away = away
    await first.finish(policyd.as_control)
    if away:
        policyd.away = False
        await Forwarding(tmp_path, OUTSIDE).finish(policyd.as_control)

    assert policyd.told == [("l", b"a" * 80, 0, ""), ("", b"", 3, FULL)]


@pytest.mark.parametrize("told", [0, 1])
async def test_an_agent_that_was_killed_leaves_a_gap_which_the_next_one_says_once(tmp_path: Path, told: int) -> None:
    killed = Forwarding(tmp_path, OUTSIDE)
    killed.of("shop-v1").take("l", b"a", 1)
    policyd = Policyd()
    for _ in range(2):  # the second one has nothing to add
        again = Forwarding(tmp_path, OUTSIDE)
        await again._send(policyd.as_control)
    if told:
        again.of("shop-v1").take("l", b"b", 1)
    await again.finish(policyd.as_control)
    await Forwarding(tmp_path, OUTSIDE).finish(policyd.as_control)

    frames = {batch.seq + at: one for batch in policyd.batches for at, one in enumerate(batch.told)}  # as policyd keeps
    found = [(one.logged, one.lost, one.why) for _, one in sorted(frames.items())]
    assert found == [(b"a", 0, ""), (b"", 0, KILLED), *[(b"b", 0, "")] * told]


def test_of_an_agent_that_was_killed_the_gap_is_not_forgotten_while_it_cannot_be_said(tmp_path: Path) -> None:
    decided(tmp_path / "s", 200).take("l", b"a" * 150, 1)
    for _ in range(2):  # the spool is full, and the second one is killed as well
        again = decided(tmp_path / "s", 200)
        again.left(Spool(tmp_path / "s", 200))
    assert again.spool is not None
    again.spool.kept(1)

    again.take("l", b"b", 1)

    assert waiting(again) == [("", b"", 0, KILLED), ("l", b"b", 0, "")]


ENDS: dict[str, tuple[Callable[[Decided], object], list[str]]] = {
    "in order": (lambda one: one.ended(1), []),
    "in order, and not all was told": (lambda one: one.ended(3), [NOT_TOLD]),
    "in order, and it did not say how many there are": (lambda one: one.ended(None), [UNASKED]),
    "by itself": (lambda one: one.crashed(), [CRASHED]),
    "by itself and for good": (lambda one: (one.crashed(), one.ended(None)), [CRASHED]),
    "in order before another": (lambda one: (one.ended(1), one.fresh(), one.take("l", b"b", 1)), [KILLED]),
    "by itself before another": (lambda one: (one.crashed(), one.fresh(), one.take("l", b"b", 1)), [CRASHED, KILLED]),
    "not at all": (lambda _: None, [KILLED]),
}


@pytest.mark.parametrize(("ends", "said"), ENDS.values(), ids=ENDS)
def test_an_agent_that_is_killed_leaves_a_gap_of_the_envoys_that_might_have_told_more(
    tmp_path: Path, ends: Callable[[Decided], object], said: list[str]
) -> None:
    one = decided(tmp_path / "s")
    one.fresh()
    one.take("l", b"a", 1)
    ends(one)

    again = decided(tmp_path / "s")
    again.left(Spool(tmp_path / "s"))

    assert [why for _, _, _, why in waiting(again) if why] == said


def test_what_an_envoy_may_not_have_told_stays_marked_until_it_is_said(tmp_path: Path) -> None:
    one = decided(tmp_path / "s", 120)
    one.take("l", b"a" * 80, 1)
    one.take("l", b"b" * 80, 3)  # too much, and no room to say so
    one.ended(4)

    assert Spool(tmp_path / "s").was_cut


async def test_an_envoy_tells_over_grpc_and_what_it_can_do_is_left_out(tmp_path: Path) -> None:
    one = decided(tmp_path / "s")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Listening(one).handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    log = {"http_logs": {"log_entry": [{"request": {"path": "/a"}}, {}]}}
    build: Any = shared().build
    bodies = [
        build("envoy.service.accesslog.v3.StreamAccessLogsMessage", fields).SerializeToString()
        for fields in ({"identifier": {"log_name": "shop-v1/inbound", "node": {"id": "x" * 999}}, **log}, log)
    ]

    async def say() -> AsyncIterator[bytes]:
        for body in bodies:
            yield body

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.stream_unary(f"/{SERVICE}/{METHOD}")
        assert await call(say()) == b""
    await server.stop(None)

    assert (one.arrived, waiting(one)) == (4, [("shop-v1/inbound", bodies[1], 0, "")] * 2)


async def test_what_a_token_says_stays_at_the_agent_but_for_what_policies_read(tmp_path: Path) -> None:
    one = decided(tmp_path / "s")
    build: Any = shared().build
    message = "envoy.service.accesslog.v3.StreamAccessLogsMessage"
    said = {"policyd.user": {"is": "somebody", "user": {"id": "https://a/al"}}}
    tokens = {METADATA_TOKENS: {"default/people/0": {"iss": "https://a", "sub": "al", "salary": 1}}}

    def log(metadata: dict[str, Any]) -> dict[str, Any]:
        common = {"metadata": {"filter_metadata": metadata}, "route_name": "r"}
        return {
            "http_logs": {"log_entry": [{"common_properties": common}, {"request": {"path": f"/{METADATA_TOKENS}"}}]}
        }

    async def say() -> AsyncIterator[bytes]:
        yield build(message, log(said | tokens)).SerializeToString(deterministic=True)

    await Listening(one).take(say())

    [(_, logged, _, _)] = waiting(one)
    assert shared().message(message).FromString(logged) == build(message, log(said))


class Counting:
    """The administration of an Envoy that has counted ten decisions, two of them of requests that are under way."""

    def __init__(self) -> None:
        self.dropped = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        page = b"http.inbound.rbac.allowed: 9\nhttp.inbound.rbac.denied: 1\nhttp.inbound.downstream_rq_active: 2\n"
        page += b"access_logs.grpc_access_log.logs_dropped: %d\n" % self.dropped
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + page)
        await writer.drain()
        writer.close()


async def test_what_envoy_counted_and_did_not_tell_is_a_gap_that_is_said_once(tmp_path: Path) -> None:
    one, silent = decided(tmp_path / "s"), decided(tmp_path / "t")
    one.fresh()
    one.take("l", b"log", 5)
    socket = tmp_path / "admin.sock"
    tally = Tally(lambda: {"shop-v1": (one, socket), "web-v1": (silent, tmp_path / "nobody.sock")}, OUTSIDE)
    async with await asyncio.start_unix_server(Counting(), socket):
        await tally.compare()
        await tally.compare()

    assert waiting(one) == [("l", b"log", 0, ""), ("", b"", 3, NOT_TOLD)]
    assert silent.spool is None


async def test_what_envoy_says_that_it_dropped_is_said_at_once_and_is_not_missed_again(tmp_path: Path) -> None:
    one, envoy, socket = decided(tmp_path / "s"), Counting(), tmp_path / "admin.sock"
    one.take("l", b"log", 5)
    tally = Tally(lambda: {"shop-v1": (one, socket)}, OUTSIDE)
    async with await asyncio.start_unix_server(envoy, socket):
        envoy.dropped = 2
        await tally.compare()
        envoy.dropped = 3
        one.take("l", b"more", 9)  # under load, as many arrive as may hide a gap
        await tally.compare()

    gaps = [("", b"", 2, DROPPED), ("", b"", 1, NOT_TOLD)]
    assert waiting(one) == [("l", b"log", 0, ""), *gaps, ("l", b"more", 0, ""), ("", b"", 1, DROPPED)]


NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
Rounds = Iterator[list[datetime]]  # in each, when requests ended that are told then


def ended(moments: list[datetime]) -> bytes:
    """What an Envoy tells of requests that took a second and ended at these moments."""
    logs = [
        {"common_properties": {"start_time": f"{one - timedelta(seconds=1):%Y-%m-%dT%H:%M:%S.%fZ}", "duration": "1s"}}
        for one in moments
    ]
    build: Any = shared().build
    message = build("envoy.service.accesslog.v3.StreamAccessLogsMessage", {"http_logs": {"log_entry": logs}})
    return bytes(message.SerializeToString())


def test_what_is_told_before_it_has_ended_counts_by_when_it_began() -> None:
    build: Any = shared().build
    entry = {"common_properties": {"start_time": f"{NOON:%Y-%m-%dT%H:%M:%S.%fZ}"}}

    told = build("envoy.data.accesslog.v3.HTTPAccessLogEntry", entry).SerializeToString()

    assert ended_at(told) == round(NOON.timestamp() * 1_000_000)


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

        async def say() -> AsyncIterator[bytes]:
            yield ended(moments)

        if moments:
            await Listening(self._one).take(say())

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
    one.take("l", b"log", 5)
    busy = Busy(one, iter(rounds), timedelta(seconds=set_))
    tally = Tally(lambda: {"shop-v1": (one, socket)}, busy.outside)

    async with await asyncio.start_unix_server(Counting(), socket):
        await tally.compare()

    assert [(lost, why) for _, _, lost, why in waiting(one) if why] == ([(missing, NOT_TOLD)] if missing else [])


async def test_an_envoy_that_counts_decisions_and_tells_none_is_silent(tmp_path: Path) -> None:
    """As one that is older than its counters' names, and leaves no metadata for the log to go by."""
    one, socket = decided(tmp_path / "s"), tmp_path / "admin.sock"
    tally = Tally(lambda: {"shop-v1": (one, socket)}, OUTSIDE)
    async with await asyncio.start_unix_server(Counting(), socket):
        await tally.compare()
        one.take("l", b"log", 9)
        one.lose(1, FULL)

    assert one.spool is not None
    told = [agent_pb2.Told.FromString(body) for body in one.spool.read(1 << 30)[1]]
    assert [(one.lost, one.why, one.silent) for one in told] == [(8, SILENT, True), (0, "", False), (1, FULL, False)]
