"""Threads of which each goes on with other calls while some of its own wait."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import pytest

from policyd.audit.group import Waiting, Wake
from policyd.audit.journal import Journal
from policyd.audit.verify import verify
from policyd.errors import JournalError
from policyd.server.pausing_threads import SPARE, PausingThreads
from tests.audit.samples import WRITER, an_entry, records, wait_until
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FlakyDisk

Make = Callable[..., PausingThreads]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[PausingThreads] = []

    def new(count: int) -> PausingThreads:
        made.append(PausingThreads(count))
        return made[-1]

    yield new
    for threads in made:
        threads.shutdown()


def test_while_one_call_waits_its_thread_makes_others(make: Make) -> None:
    threads, said = make(1), SimpleQueue[str]()
    wakes = SimpleQueue[Wake]()

    def waits(name: str) -> None:
        said.put(f"{name} begins")
        threads.pause(wakes.put)
        said.put(f"{name} ends")

    threads.submit(waits, "a")
    threads.submit(waits, "b")
    threads.submit(said.put, "c")
    assert [said.get() for _ in range(3)] == ["a begins", "b begins", "c"]
    first, second = wakes.get(), wakes.get()
    second()
    assert said.get() == "b ends"
    first()
    assert said.get() == "a ends"


@pytest.mark.parametrize("count", [1, 3])
def test_calls_made_together_wait_together_and_have_their_own_outcomes(make: Make, count: int) -> None:
    threads, wakes, said = make(count), SimpleQueue[Wake](), SimpleQueue[object]()

    def waits(name: str) -> str:
        threads.pause(wakes.put)
        return name

    threads.submit(lambda: said.put(threads.together([partial(waits, name) for name in "abc"])))
    all_wait = [wakes.get() for _ in range(3)]
    for wake in reversed(all_wait):
        assert said.empty()
        wake()
    assert said.get() == ["a", "b", "c"]


def test_what_one_of_them_raises_is_raised_once_all_have_ended(make: Make) -> None:
    threads, ended, said = make(1), list[str](), SimpleQueue[str]()

    def fails() -> str:
        raise ValueError("no")

    def call() -> None:
        try:
            threads.together([fails, lambda: ended.append("b") or "b"])
        except ValueError as error:
            said.put(str(error))

    threads.submit(call)
    assert said.get() == "no"
    assert ended == ["b"]


def test_another_thread_makes_them_one_after_the_other(make: Make) -> None:
    assert make(1).together([lambda: 1, lambda: 2]) == [1, 2]


def test_who_is_woken_before_it_waits_goes_on(make: Make) -> None:
    threads, said = make(1), SimpleQueue[str]()

    def call() -> None:
        threads.pause(lambda wake: wake())
        said.put("went on")

    threads.submit(call)
    assert said.get() == "went on"


def test_another_thread_sleeps_until_it_is_woken(make: Make) -> None:
    threads = make(1)
    threads.pause(threads.submit)


def test_closing_waits_for_who_waits(make: Make) -> None:
    threads, wakes, said = make(1), SimpleQueue[Wake](), SimpleQueue[str]()

    def call() -> None:
        threads.pause(wakes.put)
        said.put("went on")

    threads.submit(call)
    wake = wakes.get()
    closing = threading.Thread(target=threads.shutdown)
    closing.start()
    assert said.empty()
    wake()
    closing.join()
    assert said.get() == "went on"


VAR: ContextVar[int] = ContextVar("number")


def test_every_call_is_made_once_in_one_thread_with_its_own_context(make: Make) -> None:
    """As gRPC makes them, each in a context; more at once than stacks are kept for, and woken in any order."""
    count, dice = 3 * SPARE, random.Random(3)
    threads, mutex = make(3), threading.Lock()
    waiting: list[Wake] = []
    done: list[int] = []

    def begin(wake: Wake) -> None:
        with mutex:
            waiting.append(wake)

    def call(number: int) -> None:
        VAR.set(number)
        for _ in range(number % 4 + 1):
            thread = threading.get_ident()
            threads.pause(begin)
            assert threading.get_ident() == thread
            assert VAR.get() == number
        with mutex:
            done.append(number)

    for number in range(count):
        threads.submit(copy_context().run, call, number)
    wait_until(lambda: len(waiting) == count)
    while len(done) < count:
        with mutex:
            woken = waiting[:]
            del waiting[:]
        dice.shuffle(woken)
        for wake in woken:
            wake()
    assert sorted(done) == list(range(count))


def test_who_is_told_has_a_record_on_the_medium_and_who_is_refused_has_none(make: Make, tmp_path: Path) -> None:
    """On a medium that fails every now and then, with many more callers than threads."""
    threads = make(2)
    disk, told, refused = FlakyDisk(), dict[int, str](), list[str]()
    journal = Journal(
        tmp_path / "journal",
        WRITER,
        FakeClock(),
        durability="fsync",
        disk=disk,
        waiting=Waiting(threads.pause, linger=0.002),
    )

    def call(caller: int) -> None:
        for number in range(20):
            try:
                record = journal.append(an_entry(request_id=f"{caller}-{number}"))
            except JournalError as error:
                refused.append(error.message)
            else:
                assert record is not None
                told[record.seq] = record.request_id

    for caller in range(30):
        threads.submit(call, caller)
    threads.shutdown()
    disk.well = True
    journal.close()
    assert {one.seq: one.request_id for one in records(journal.directory) if one.kind == "decision"} == told
    assert len(told) + len(refused) == 600
    assert told
    assert refused
    assert verify(journal.directory).problems == ()
