"""Checks that wait for the medium (`audit.durability: fsync`), answered over gRPC by two threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from policyd.audit.group import Waiting
from policyd.audit.journal import Journal
from policyd.authz import reply
from policyd.authz.ruling import Ruling
from policyd.authz.service import Authorizer, add_to_server
from policyd.server.pausing_threads import PausingThreads
from policyd.server.silence import Silence
from policyd.spiffe import SpiffeId
from tests.audit.samples import WRITER, records, wait_until
from tests.authz.checks import REVIEWS, check_of
from tests.authz.test_servicer import METHOD, key_and_chain
from tests.fakes.asleep import Asleep
from tests.fakes.clock import FakeClock
from tests.fakes.decision_metrics import FakeDecisionMetrics
from tests.fakes.disk import SlowDisk
from tests.fakes.toy_ca import ToyCa

ID = "d" * 32
ALLOWED, FAILED = reply.allow(ID, "reviews-from-productpage"), reply.fail(ID)
CHECK = check_of().SerializeToString()


class House:
    """A server of two threads, whose journal is on a slow medium, and a client of it."""

    def __init__(self, ruling: Ruling, folder: Path) -> None:
        self.disk, self.metrics, clock = SlowDisk(), FakeDecisionMetrics(), FakeClock()
        self.threads = PausingThreads(2, lambda: hasattr(self, "journal") and self.journal.hurry())
        self.asleep = Asleep(self.threads.pause)
        waiting = Waiting(self.asleep, linger=60.0)
        self.journal = Journal(folder, WRITER, clock, durability="fsync", disk=self.disk, waiting=waiting)
        self.server = grpc.server(self.threads)  # type: ignore[arg-type]  # it only submits
        authorizer = Authorizer(
            ruling=lambda: ruling,
            record=self.journal.keep,
            metrics=self.metrics,
            clock=clock,
            stopwatch=time.perf_counter,
            new_id=lambda: ID,
        )
        add_to_server(authorizer, self.server, Silence(time.monotonic).message)

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
        try:
            yield house, channel.unary_unary(METHOD)
        finally:
            house.disk.allowed.release(100)
            house.server.stop(5).wait()
            house.threads.shutdown()
            house.journal.close()


def test_no_answer_goes_out_before_the_medium_has_its_record_and_then_all_do(ruling: Ruling, tmp_path: Path) -> None:
    with serving(ruling, tmp_path / "journal") as (house, ask):
        first = ask.future(CHECK, timeout=60)
        house.disk.waiting.acquire()
        rest = [ask.future(CHECK, timeout=60) for _ in range(20)]
        wait_until(lambda: house.asleep.count == 21)
        assert not [one for one in (first, *rest) if one.done()]
        house.disk.allowed.release()
        assert first.result() == ALLOWED
        house.disk.waiting.acquire()
        assert not [one for one in rest if one.done()]
        house.disk.allowed.release()
        assert [one.result() for one in rest] == [ALLOWED] * 20
        assert (house.disk.synced, house.kept()) == (2, 21)


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
        asked = [ask.future(CHECK, timeout=60) for _ in range(3)]
        wait_until(lambda: house.asleep.count == 3)
        for one in asked[:2]:
            one.cancel()
            with pytest.raises(grpc.FutureCancelledError):
                one.result()
        house.disk.allowed.release(100)
        assert asked[2].result() == ALLOWED
        assert ask(CHECK, timeout=60) == ALLOWED
        wait_until(lambda: house.asleep.count == 0)
        assert house.kept() == 4


def test_ending_answers_who_waits(ruling: Ruling, tmp_path: Path) -> None:
    with serving(ruling, tmp_path / "journal") as (house, ask), ThreadPoolExecutor(1) as other:
        asked = [ask.future(CHECK, timeout=60) for _ in range(3)]
        wait_until(lambda: house.asleep.count == 3)
        ended = other.submit(lambda: house.server.stop(60).wait())
        assert not ended.done()
        house.disk.allowed.release(100)
        assert [one.result() for one in asked] == [ALLOWED] * 3
        ended.result(60)
