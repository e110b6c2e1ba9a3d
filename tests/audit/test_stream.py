"""The stream to a collector: every record at least once, however the collector fails and whenever we are stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.audit.collector import Collector, read_headers
from policyd.audit.exported import Taken, path_of, read_taken, taken, write_taken
from policyd.audit.journal import Journal, Limits
from policyd.audit.read import Line
from policyd.audit.record import Fault
from policyd.audit.segments import list_segments
from policyd.audit.stream import BATCH_RECORDS, LONGEST_PAUSE, Sent, Stream, batches
from policyd.errors import UsageError
from tests.audit.samples import NOON, an_entry, raw_lines
from tests.fakes.clock import FakeClock
from tests.fakes.collector import FakeCollector, collecting


class Counted:
    """What was counted."""

    def __init__(self) -> None:
        self.taken = self.failures = 0
        self.behind: list[float] = []

    def exported(self, count: int) -> None:
        self.taken += count

    def export_failed(self) -> None:
        self.failures += 1

    def export_behind(self, seconds: float) -> None:
        self.behind.append(seconds)


class Stop(threading.Event):
    """Waits are remembered, and over at once; after `until` of them it is set."""

    def __init__(self, until: int = 1000) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._until = until

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        if len(self.waits) >= self._until:
            self.set()
        return self.is_set()


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    with collecting() as fake:
        yield fake


def write(folder: Path, count: int, writer: str = "a", **changes: Any) -> None:
    journal = Journal(folder, writer, FakeClock(), limits=Limits(max_bytes=4096))
    for _ in range(count):
        journal.append(an_entry(**changes))
    journal.close()


def stream(folder: Path, send: Any, stop: Stop | None = None, counted: Counted | None = None) -> Stream:
    later = NOON + timedelta(minutes=1)
    return Stream(
        folder, "otlp", send, clock=lambda: later, random=Random(1), stop=stop or Stop(), observer=counted or Counted()
    )


def through(fake: FakeCollector) -> Any:
    return Collector(fake.url, {"x-api-key": "secret"}, "1.2.3").send


def run_dry(one: Stream) -> None:
    while one.step():
        pass


def test_a_record_arrives_as_it_stands_in_the_journal(tmp_path: Path, collector: FakeCollector) -> None:
    write(tmp_path / "j", 1, trace_id="0af7651916cd43dd8448eb211c80319c", span_id="b7ad6b7169203331", decision="deny")
    write(tmp_path / "j", 1, "b", trace_id="short", decision="error", errors=(Fault("x", "y"),))
    run_dry(stream(tmp_path / "j", through(collector)))

    records = [one for request in collector.requests for one in request.resource_logs[0].scope_logs[0].log_records]
    assert [one.body.string_value.encode() + b"\n" for one in records] == raw_lines(tmp_path / "j")
    first, second = records
    assert (first.time_unix_nano, first.severity_text, second.severity_text) == (
        int(NOON.timestamp()) * 10**9,
        "WARN",
        "ERROR",
    )
    assert (first.trace_id.hex(), first.span_id.hex()) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert second.trace_id == b""
    attributes = {one.key: one.value for one in first.attributes}
    assert attributes["policyd.decision"].string_value == "deny"
    assert attributes["policyd.seq"].int_value == 1
    assert attributes["policyd.reasons"].string_value == "reviews-from-productpage"
    assert {one.key: one.value.string_value for one in collector.requests[0].resource_logs[0].resource.attributes} == {
        "service.name": "policyd",
        "service.version": "1.2.3",
    }
    assert collector.headers[0]["x-api-key"] == "secret"
    assert collector.headers[0]["content-type"] == "application/x-protobuf"


def test_it_goes_on_where_it_stopped(tmp_path: Path, collector: FakeCollector) -> None:
    write(tmp_path / "j", 30)
    run_dry(stream(tmp_path / "j", through(collector)))
    write(tmp_path / "j", 5)
    write(tmp_path / "j", 3, "b")
    run_dry(stream(tmp_path / "j", through(collector)))
    assert sorted(collector.seqs) == [*(("a", seq) for seq in range(1, 36)), *(("b", seq) for seq in range(1, 4))]
    assert taken(tmp_path / "j", ["otlp"]) == {"a": 35, "b": 3}


def test_a_target_that_is_down_for_an_hour_loses_nothing(tmp_path: Path, collector: FakeCollector) -> None:
    """Nothing is read meanwhile, pauses grow to a minute, and retention is told that nothing was taken."""
    write(tmp_path / "j", 40)
    collector.answers = [503] * 70
    stop, counted = Stop(), Counted()
    one = stream(tmp_path / "j", through(collector), stop, counted)
    one.step()
    assert sum(stop.waits) > 3600
    assert all(0.8 * min(2**n, LONGEST_PAUSE) <= wait <= 1.2 * LONGEST_PAUSE for n, wait in enumerate(stop.waits))
    assert counted.failures == 70
    assert counted.behind[0] == 60.0
    run_dry(one)
    assert collector.seqs == [("a", seq) for seq in range(1, 41)]
    assert one.health.trouble == ""


def test_stopped_while_the_target_is_away_it_has_taken_nothing(tmp_path: Path, collector: FakeCollector) -> None:
    write(tmp_path / "j", 4)
    collector.answers = [503] * 1000
    stop = Stop(until=5)
    one = stream(tmp_path / "j", through(collector), stop)
    one.run()
    assert (taken(tmp_path / "j", ["otlp"]), one.health.trouble) == ({}, "status 503")
    collector.answers = []
    run_dry(stream(tmp_path / "j", through(collector)))
    assert collector.seqs == [("a", seq) for seq in range(1, 5)]


@settings(max_examples=30, deadline=None)
@given(
    fails=st.lists(st.sampled_from(["taken", "later", "dies"]), max_size=12),
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=4),
)
def test_every_record_arrives_in_order_whatever_happens_between(
    tmp_path_factory: pytest.TempPathFactory, fails: list[str], counts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("stream") / "j"
    arrived: list[int] = []
    plan = list(fails)

    class Died(Exception):
        pass

    def send(lines: Sequence[Line]) -> Sent:
        fate = plan.pop(0) if plan else "taken"
        if fate != "later":
            arrived.extend(line.record.seq for line in lines)
        if fate == "dies":  # after it was taken, before that is written
            raise Died
        return Sent("taken" if fate == "taken" else "later", "away")

    for count in counts:
        write(folder, count)
        while True:
            try:
                run_dry(stream(folder, send))
                break
            except Died:
                continue
    firsts = list(dict.fromkeys(arrived))
    assert firsts == list(range(1, sum(counts) + 1))
    assert taken(folder, ["otlp"]) == {"a": sum(counts)}


@pytest.mark.parametrize("partial", [False, True])
def test_a_record_that_is_refused_for_good_keeps_no_other_back(
    tmp_path: Path, collector: FakeCollector, partial: bool
) -> None:
    write(tmp_path / "j", 20)
    collector.poison, collector.partial = 13, partial
    run_dry(stream(tmp_path / "j", through(collector)))
    assert sorted(set(collector.seqs)) == [("a", seq) for seq in range(1, 21) if seq != 13]
    assert taken(tmp_path / "j", ["otlp"]) == {"a": 20}


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503, 504, 302])
def test_what_can_be_mended_is_waited_for(tmp_path: Path, collector: FakeCollector, status: int) -> None:
    write(tmp_path / "j", 3)
    collector.answers = [status, status]
    run_dry(stream(tmp_path / "j", through(collector)))
    assert (collector.tries, collector.seqs) == (3, [("a", 1), ("a", 2), ("a", 3)])


def test_nobody_listens(tmp_path: Path) -> None:
    write(tmp_path / "j", 3)
    with collecting() as fake:
        url = fake.url
    stop = Stop(until=3)
    one = stream(tmp_path / "j", Collector(url, {}, "1").send, stop)
    one.step()
    assert one.health.trouble == "no answer: ConnectError"


def test_batches_have_bounds() -> None:
    line = Line(an_entry(), b"x" * 4000)  # type: ignore[arg-type]
    sizes = [len(batch) for batch in batches([line] * 1000)]
    assert sum(sizes) == 1000
    assert max(sizes) * 4000 <= 1 << 20
    assert [len(one) for one in batches([Line(line.record, b"x")] * 1000)] == [BATCH_RECORDS, 1000 - BATCH_RECORDS]
    assert [len(one) for one in batches([Line(line.record, b"x" * (2 << 20))] * 2)] == [1, 1]


def test_memory_is_bounded_however_long_the_journal(tmp_path: Path) -> None:
    """Of what is far behind, a bounded part is read at a time."""
    write(tmp_path / "j", 4000, detail={"x": "y" * 1500})
    sizes: list[int] = []

    def send(lines: Sequence[Line]) -> Sent:
        sizes.append(sum(len(line.raw) for line in lines))
        return Sent("taken")

    steps = 0
    one = stream(tmp_path / "j", send)
    while one.step():
        steps += 1
    assert steps >= 6
    assert max(sizes) <= 1 << 20


def test_what_several_targets_have_taken_is_the_least(tmp_path: Path) -> None:
    write_taken(tmp_path, "a", {"w": Taken(1, 10, 7), "x": Taken(1, 10, 7)})
    write_taken(tmp_path, "b", {"w": Taken(1, 5, 3)})
    assert taken(tmp_path, []) is None
    assert taken(tmp_path, ["a"]) == {"w": 7, "x": 7}
    assert taken(tmp_path, ["a", "b"]) == {"w": 3}
    assert taken(tmp_path, ["a", "never"]) == {}
    assert oct(path_of(tmp_path, "a").stat().st_mode)[-3:] == "600"


@pytest.mark.parametrize("text", ["", "{", '{"format": 2, "writers": {}}', '{"format": 1}', "[]", "\xff"])
def test_a_file_that_cannot_be_read_counts_as_nothing_taken(tmp_path: Path, text: str) -> None:
    path_of(tmp_path, "a").write_bytes(text.encode("latin-1"))
    assert read_taken(tmp_path, "a") == {}


def test_what_retention_took_is_not_waited_for(tmp_path: Path, collector: FakeCollector) -> None:
    write(tmp_path / "j", 30)
    one = stream(tmp_path / "j", through(collector))
    run_dry(one)
    for segment in list_segments(tmp_path / "j")["a"][:-1]:
        segment.path.unlink()
    write(tmp_path / "j", 2)
    run_dry(one)
    run_dry(stream(tmp_path / "j", through(collector)))
    assert collector.seqs == [("a", seq) for seq in range(1, 33)]


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("x-api-key: s", 0o644, "can be read by others"),
        ("nonsense", 0o600, ", line 1, is no header"),
        ("ok: 1\n: x", 0o600, ", line 2, is no header"),
        ("ü: x", 0o600, "cannot be read"),
    ],
)
def test_a_bad_file_of_headers_is_refused(tmp_path: Path, text: str, mode: int, message: str) -> None:
    path = tmp_path / "headers"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(UsageError) as raised:
        read_headers(path)
    assert message in raised.value.message


def test_headers_are_read_from_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_text("# of the collector\nX-Api-Key: a: b\n\nother: 1\n")
    path.chmod(0o600)
    assert read_headers(path) == {"x-api-key": "a: b", "other": "1"}
