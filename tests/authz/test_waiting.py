"""Checks that wait for the medium (`audit.durability: fsync`), answered over gRPC a turn at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from policyd.audit.journal import Journal
from policyd.audit.record import Entry
from policyd.authz import reply
from policyd.authz.ruling import Ruling
from policyd.authz.service import Authorizer, add_to_server
from policyd.errors import JournalError
from policyd.server.check_threads import CheckThreads
from policyd.server.silence import SILENT_SECONDS, Silence, one_message
from policyd.server.turns import SPARE, Turns
from policyd.spiffe import SpiffeId
from tests.audit.samples import WRITER, records, wait_until
from tests.authz.checks import REVIEWS, check_of
from tests.authz.test_servicer import METHOD, key_and_chain
from tests.fakes.clock import FakeClock, Watch
from tests.fakes.decision_metrics import FakeDecisionMetrics
from tests.fakes.disk import SlowDisk
from tests.fakes.toy_ca import ToyCa

ID = "d" * 32
ALLOWED, FAILED = reply.allow(ID, "reviews-from-productpage"), reply.fail(ID)
CHECK = check_of().SerializeToString()


class House:
    """A server whose journal is on a slow medium, and a client of it; until the journal is `open`, threads answer."""

    channel: grpc.Channel

    def __init__(self, ruling: Ruling, folder: Path) -> None:
        self.disk, self.metrics, clock = SlowDisk(), FakeDecisionMetrics(), FakeClock()
        self.open, self.faulty, self.turns_of, self.watch = True, False, list[int](), Watch()
        self.silence = Silence(self.watch)
        self.may_decide, self.deciding = threading.Lock(), False
        self.turns = Turns(
            CheckThreads(2, 2),
            self.silence,
            ready=lambda: self.open,
            keep_all=self._keep_all,
            stopwatch=lambda: 0.0,
        )
        self.journal = Journal(folder, WRITER, clock, durability="fsync", disk=self.disk)
        self.server = grpc.server(self.turns)  # type: ignore[arg-type]  # it only submits
        authorizer = Authorizer(
            ruling=lambda: ruling,
            record=self._keep,
            metrics=self.metrics,
            clock=clock,
            stopwatch=time.perf_counter,
            new_id=lambda: ID,
        )
        self.turns.serve(self.server)
        add_to_server(authorizer, self.server, one_message)
        name = grpc.unary_unary_rpc_method_handler(lambda *_: threading.current_thread().name, bytes, str.encode)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Threads", {"Name": name}),))

    def _keep_all(self, entries: Sequence[Entry]) -> list[JournalError | None]:
        self.turns_of += [len(entries)]
        return self.journal.keep_all(entries)

    def _keep(self, entry: Entry) -> None:
        if self.faulty:
            raise RuntimeError("a fault of ours")
        self.deciding = True
        with self.may_decide:  # as long as a test has it, it is being decided
            pass
        self.turns.keep(entry)

    def kept(self) -> int:
        return sum(one.kind == "decision" for one in records(self.journal.directory))


@contextmanager
def serving(ruling: Ruling, folder: Path) -> Iterator[tuple[House, Any]]:
    """The house, and what asks it."""
    ca, house = ToyCa(), House(ruling, folder)
    own = key_and_chain(ca, str(SpiffeId.server("cluster.local")), dns=("policyd",))
    port = house.server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([own], ca.root.pem, True))
    house.server.start()
    credentials = grpc.ssl_channel_credentials(ca.root.pem, *key_and_chain(ca, str(REVIEWS)))
    options = [("grpc.ssl_target_name_override", "policyd")]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        house.channel = channel
        try:
            yield house, channel.unary_unary(METHOD)
        finally:
            house.disk.allowed.release(100)
            house.server.stop(5).wait()
            house.turns.shutdown()
            house.journal.close()


def test_no_answer_goes_out_before_the_medium_has_its_record_and_then_all_do(ruling: Ruling, tmp_path: Path) -> None:
    with serving(ruling, tmp_path / "journal") as (house, ask):
        first = ask.future(CHECK, timeout=60)
        house.disk.waiting.acquire()
        rest = [ask.future(CHECK, timeout=60) for _ in range(20)]
        assert not [one for one in (first, *rest) if one.done()]
        house.disk.allowed.release()
        assert first.result() == ALLOWED
        house.disk.waiting.acquire()
        assert not [one for one in rest if one.done()]
        house.disk.allowed.release(100)
        assert [one.result() for one in rest] == [ALLOWED] * 20
        assert house.kept() == 21


def test_what_came_while_the_medium_worked_shares_the_next_commit(ruling: Ruling, tmp_path: Path) -> None:
    with serving(ruling, tmp_path / "journal") as (house, ask):
        house.disk.allowed.release(10_000)

        def more_than_are_spare() -> bool:
            asked = [ask.future(CHECK, timeout=60) for _ in range(SPARE * 3)]
            assert [one.result() for one in asked] == [ALLOWED] * len(asked)
            return max(house.turns_of) > SPARE

        wait_until(more_than_are_spare)
        assert house.disk.synced == len(house.turns_of)


def test_what_comes_before_the_turns_are_ready_is_answered_by_other_threads(ruling: Ruling, tmp_path: Path) -> None:
    with serving(ruling, tmp_path / "journal") as (house, ask):
        house.disk.allowed.release(100)
        house.open = False
        assert ask(CHECK, timeout=60) == ALLOWED
        house.open = True
        assert ask(CHECK, timeout=60) == ALLOWED
        assert house.disk.synced == 2


def test_what_is_no_check_is_answered_by_other_threads(ruling: Ruling, tmp_path: Path) -> None:
    with serving(ruling, tmp_path / "journal") as (house, ask):
        house.disk.allowed.release(100)
        assert ask(CHECK, timeout=60) == ALLOWED
        assert house.channel.unary_unary("/test.Threads/Name")(b"", timeout=60) in (b"check-0", b"check-1")
        assert ask(CHECK, timeout=60) == ALLOWED


def test_a_fault_of_ours_is_an_error_of_that_call_alone(ruling: Ruling, tmp_path: Path) -> None:
    with serving(ruling, tmp_path / "journal") as (house, ask):
        house.disk.allowed.release(100)
        house.faulty = True
        with pytest.raises(grpc.RpcError) as told:
            ask(CHECK, timeout=60)
        assert told.value.code() == grpc.StatusCode.UNKNOWN  # type: ignore[attr-defined]
        house.faulty = False
        assert ask(CHECK, timeout=60) == ALLOWED


def test_where_the_medium_refuses_all_who_waited_get_an_error_and_the_next_one_an_answer(
    ruling: Ruling, tmp_path: Path
) -> None:
    with serving(ruling, tmp_path / "journal") as (house, ask):
        house.disk.broken = {"sync"}
        asked = [ask.future(CHECK, timeout=60) for _ in range(5)]
        house.disk.allowed.release(100)
        assert [one.result() for one in asked] == [FAILED] * 5
        assert house.kept() == 0
        house.disk.broken = set()
        assert ask(CHECK, timeout=60) == ALLOWED
        assert [word for word, *_ in house.metrics.counted] == ["error"] * 5 + ["allow"]


def test_who_gives_up_while_it_waits_is_on_record_and_holds_up_nobody(ruling: Ruling, tmp_path: Path) -> None:
    with serving(ruling, tmp_path / "journal") as (house, ask):
        gone = ask.future(CHECK, timeout=60)
        house.disk.waiting.acquire()
        gone.cancel()
        with pytest.raises(grpc.FutureCancelledError):
            gone.result()
        house.disk.allowed.release(100)
        assert ask(CHECK, timeout=60) == ALLOWED
        assert house.kept() == 2


def test_while_the_medium_works_nobody_is_silent(ruling: Ruling, tmp_path: Path) -> None:
    said = threading.Event()

    def late() -> Iterator[bytes]:
        said.wait(60)
        yield CHECK

    with serving(ruling, tmp_path / "journal") as (house, ask):
        held = house.channel.stream_unary(METHOD).future(late(), timeout=60)
        wait_until(lambda: house.silence.waiting == 1)
        asked = ask.future(CHECK, timeout=60)
        house.disk.waiting.acquire()
        house.watch.now += SILENT_SECONDS * 4
        house.silence.look()
        house.disk.allowed.release(100)
        assert asked.result() == ALLOWED
        house.silence.look()
        said.set()
        assert held.result(60) == ALLOWED


def test_the_thread_that_reads_ends_with_the_server_whoever_has_gone_meanwhile(ruling: Ruling, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with serving(ruling, tmp_path / "journal") as (house, ask), ThreadPoolExecutor(1) as other:
        house.disk.allowed.release(100)
        with house.may_decide:
            gone, states = ask.future(CHECK, timeout=60), list[grpc.ChannelConnectivity]()
            wait_until(lambda: house.deciding)
            house.channel.subscribe(states.append)
            ended = other.submit(lambda: house.server.stop(None))
            wait_until(gone.done)
            wait_until(lambda: grpc.ChannelConnectivity.IDLE in states[1:])  # the server has closed the connection
        ended.result(60)
        wait_until(lambda: not [one for one in set(threading.enumerate()) - before if "_serve" in one.name])
        assert house.kept() == 1


def test_ending_answers_who_waits(ruling: Ruling, tmp_path: Path) -> None:
    with serving(ruling, tmp_path / "journal") as (house, ask), ThreadPoolExecutor(1) as other:
        asked = ask.future(CHECK, timeout=60)
        house.disk.waiting.acquire()
        ended = other.submit(lambda: house.server.stop(60).wait())
        assert not ended.done()
        house.disk.allowed.release(100)
        assert asked.result() == ALLOWED
        ended.result(60)
