"""The journal: what is kept, in which order, and what happens when it cannot be."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.audit.appender import Limits
from policyd.audit.journal import Journal
from policyd.audit.masking import MASK
from policyd.audit.read import ends
from policyd.audit.record import Kind, digest, genesis
from policyd.audit.segments import list_segments, segment_name
from policyd.audit.verify import verify
from policyd.audit.writer import writer_name
from policyd.errors import JournalError, PolicydError, StateError
from tests.audit.samples import NOON, WRITER, an_entry, raw_lines, records, wait_until
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FailingDisk

DAY = 86_400.0
Open = Callable[..., Journal]


class Counted:
    """Counts what the journal says of itself."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.failures = 0

    def journal_record(self, kind: str, count: int = 1) -> None:
        self.kept += [kind] * count

    def journal_failure(self) -> None:
        self.failures += 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def open_journal(folder: Path) -> Iterator[Open]:
    """Opens the journal of this test; every one that is left open is closed."""
    opened: list[Journal] = []

    def make(clock: FakeClock | None = None, **options: Any) -> Journal:
        opened.append(Journal(folder, WRITER, clock or FakeClock(), **options))
        return opened[-1]

    yield make
    for journal in opened:
        journal.close()


def details(folder: Path) -> list[dict[str, Any]]:
    return [dict(record.detail) for record in records(folder) if record.kind == "operation"]


# ---- keeping


def test_each_record_has_its_place_and_is_on_disk_when_append_returns(open_journal: Open, folder: Path) -> None:
    journal = open_journal()
    first, second = journal.append(an_entry()), journal.append(an_entry(decision="deny"))
    assert records(folder) == [first, second]
    lines = raw_lines(folder)
    assert first is not None
    assert second is not None
    assert [(r.writer, r.seq, r.prev) for r in (first, second)] == [
        (WRITER, 1, genesis(WRITER)),
        (WRITER, 2, digest(lines[0])),
    ]


def test_the_next_opener_goes_on_where_the_last_one_stopped(open_journal: Open, folder: Path) -> None:
    for _ in range(3):
        journal = open_journal()
        journal.append(an_entry())
        journal.append(an_entry())
        journal.close()
    assert [record.seq for record in records(folder)] == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in sorted(folder.glob("*.jsonl"))] == [segment_name(WRITER, 1)]
    assert verify(folder).problems == ()


def test_only_the_owner_may_read(open_journal: Open, folder: Path) -> None:
    open_journal().append(an_entry())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    assert modes == {"journal": 0o700, "format": 0o600, segment_name(WRITER, 1): 0o600, f"{WRITER}.lock": 0o600}


@pytest.mark.parametrize("durability", ["written", "fsync", "async"])
def test_many_threads_append_without_gap(open_journal: Open, folder: Path, durability: str) -> None:
    journal = open_journal(durability=durability, disk=FailingDisk(), limits=Limits(max_bytes=20_000))
    threads = [threading.Thread(target=lambda: [journal.append(an_entry()) for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert [record.seq for record in records(folder)] == list(range(1, 401))
    assert verify(folder).problems == ()


def test_planted_secrets_are_not_in_the_journal(open_journal: Open, folder: Path) -> None:
    journal = open_journal()
    record = journal.append(
        an_entry(
            context={"request": {"headers": {"authorization": "Bearer aGVsbG8tMTIz", "x-user": "jason"}}},
            request_id="eyJhbGciOiJub25lIn0.eyJzdWIiOiJqYXNvbiJ9.",
            detail={"cookie": "session=tasty"},
        )
    )
    assert record is not None
    assert record.context == {"request": {"headers": {"authorization": MASK, "x-user": "jason"}}}
    assert record.masked == ("request.headers.authorization",)
    assert records(folder) == [record]
    (line,) = raw_lines(folder)
    assert not [secret for secret in (b"aGVsbG8", b"eyJ", b"tasty") if secret in line]


def test_who_counts_hears_of_records_and_failures(open_journal: Open) -> None:
    disk, counted = FailingDisk(), Counted()
    journal = open_journal(disk=disk, observer=counted)
    journal.append(an_entry())
    disk.space = 0
    with pytest.raises(JournalError):
        journal.append(an_entry())
    assert (counted.kept, counted.failures) == (["decision"], 1)


# ---- segments


def test_a_full_segment_is_followed_by_one_named_by_its_first_record(open_journal: Open, folder: Path) -> None:
    journal = open_journal()
    journal.append(an_entry())
    length = len(raw_lines(folder)[0])
    journal.close()
    journal = open_journal(limits=Limits(max_bytes=3 * length + 10))
    for _ in range(6):
        journal.append(an_entry())
    names = [segment.path.name for segment in list_segments(folder)[WRITER]]
    assert names == [segment_name(WRITER, first) for first in (1, 4, 7)]
    assert verify(folder).problems == ()


def test_an_old_segment_is_followed_by_a_new_one_also_over_a_restart(open_journal: Open, folder: Path) -> None:
    clock = FakeClock(NOON)
    limits = Limits(max_age=DAY)
    journal = open_journal(clock, limits=limits)
    journal.append(an_entry())
    clock.advance(DAY / 2)
    journal.append(an_entry())
    journal.close()
    clock.advance(DAY / 2)
    open_journal(clock, limits=limits).append(an_entry())
    assert [segment.first_seq for segment in list_segments(folder)[WRITER]] == [1, 3]


def test_a_segment_of_a_journal_that_rests_is_ended_when_it_is_old(open_journal: Open, folder: Path) -> None:
    clock = FakeClock(NOON)
    journal = open_journal(clock, limits=Limits(max_age=DAY))
    journal.append(an_entry())
    clock.advance(DAY - 1)
    journal.turn()
    assert [segment.first_seq for segment in list_segments(folder)[WRITER]] == [1]
    clock.advance(1)
    journal.turn()
    journal.turn()
    assert [segment.first_seq for segment in list_segments(folder)[WRITER]] == [1, 2]
    assert journal.append(an_entry()).seq == 2  # type: ignore[union-attr]
    assert verify(folder).problems == ()


def test_a_resting_buffered_journal_ends_an_old_segment_too(open_journal: Open, folder: Path) -> None:
    clock = FakeClock(NOON)
    journal = open_journal(clock, durability="async")
    journal.append(an_entry())
    wait_until(lambda: bool(raw_lines(folder)))
    clock.advance(DAY)
    journal.turn()
    wait_until(lambda: [segment.first_seq for segment in list_segments(folder)[WRITER]] == [1, 2])


def test_a_clock_that_is_set_back_begins_a_segment_and_loses_nothing(open_journal: Open, folder: Path) -> None:
    clock = FakeClock(NOON)
    journal = open_journal(clock)
    for seconds in (0, -DAY, 0.5, -30, 1):
        clock.advance(seconds)
        journal.append(an_entry(time=clock()))
    assert [segment.first_seq for segment in list_segments(folder)[WRITER]] == [1, 2]
    assert [record.seq for record in records(folder)] == [1, 2, 3, 4, 5]
    assert verify(folder).problems == ()


# ---- opening


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_wherever_the_file_is_torn_the_next_opener_goes_on(data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("torn") / "journal"
    journal = Journal(folder, WRITER, FakeClock())
    for _ in range(3):
        journal.append(an_entry())
    journal.close()
    segment = folder / segment_name(WRITER, 1)
    whole = segment.read_bytes()
    length = data.draw(st.integers(0, len(whole)))
    garbage = data.draw(st.sampled_from([b"", b"\0" * 40, b'{"kind":"decision"}\n', b"\0\n\n"]))
    segment.write_bytes(whole[:length] + garbage)
    left = whole[:length].count(b"\n")
    torn = (whole[:length] + garbage)[sum(map(len, whole.splitlines(keepends=True)[:left])) :]

    reopened = Journal(folder, WRITER, FakeClock())
    record = reopened.append(an_entry())
    reopened.close()
    assert record is not None
    assert record.seq == left + 1 + bool(torn)
    assert verify(folder).problems == ()
    aside = [path.read_bytes() for path in folder.glob("*.torn-*")]
    assert aside == ([torn] if torn else [])


def test_a_torn_end_is_kept_aside_and_recorded(open_journal: Open, folder: Path) -> None:
    journal = open_journal()
    journal.append(an_entry())
    journal.close()
    with (folder / segment_name(WRITER, 1)).open("ab") as file:
        file.write(b'{"time":"2026')
    open_journal()
    aside = f"{segment_name(WRITER, 1)}.torn-2"
    assert details(folder) == [
        {"operation": "journal.recovered", "segment": segment_name(WRITER, 1), "cut_bytes": 13, "kept_as": aside}
    ]
    assert (folder / aside).read_bytes() == b'{"time":"2026'


def test_a_segment_that_was_begun_and_never_written_is_gone_on_with(open_journal: Open, folder: Path) -> None:
    journal = open_journal(limits=Limits(max_bytes=1))
    journal.append(an_entry())
    journal.append(an_entry())
    journal.close()
    (folder / segment_name(WRITER, 3)).touch()
    open_journal().append(an_entry())
    assert [record.seq for record in records(folder)] == [1, 2, 3]
    assert verify(folder).problems == ()


def test_files_that_do_not_say_where_to_go_on_are_refused(open_journal: Open, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / segment_name(WRITER, 9)).write_bytes(b"\0" * 10)
    with pytest.raises(JournalError, match="has no whole record, and what came before it does not lead to 9"):
        open_journal()
    assert (folder / segment_name(WRITER, 9)).read_bytes() == b"\0" * 10


def test_a_journal_of_an_earlier_version_is_gone_on_with(open_journal: Open, folder: Path) -> None:
    journal = open_journal()
    journal.append(an_entry())
    journal.close()
    (folder / "format").unlink()  # which there was none of
    assert [record.seq for record in records(folder)] == [1]
    assert verify(folder).problems == ()
    assert open_journal().append(an_entry()).seq == 2  # type: ignore[union-attr]
    assert (folder / "format").read_text() == "2\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3\n", "the journal `{}` has format 3, this policyd knows 2"),
        ("two", "`{}` is corrupted: `format` has no version"),
        ("", "`{}` is corrupted: `format` has no version"),
        ("2" * 99, "`{}` is corrupted: `format` has no version"),
    ],
)
def test_a_journal_of_another_form_is_neither_read_nor_written(
    open_journal: Open, folder: Path, text: str, message: str
) -> None:
    open_journal().close()
    (folder / "format").write_text(text)
    for use in (open_journal, lambda: verify(folder), lambda: ends(folder)):
        with pytest.raises(StateError) as caught:
            use()
        assert caught.value.message == message.format(folder)


def test_foreign_files_are_left_alone_and_mislead_nobody(open_journal: Open, folder: Path) -> None:
    journal = open_journal(limits=Limits(max_bytes=1))
    journal.append(an_entry())
    foreign = {
        name: folder / name
        for name in ("notes.txt", "serve-1.jsonl", f"{WRITER}-0.jsonl", f"{segment_name(WRITER, 1)}~", "x.sealed")
    }
    for path in foreign.values():
        path.write_bytes(b"not ours\n")
    (folder / "a folder").mkdir()
    journal.append(an_entry())
    journal.close()
    assert open_journal().append(an_entry()).seq == 3  # type: ignore[union-attr]
    assert verify(folder).problems == ()
    assert {path.read_bytes() for path in foreign.values()} == {b"not ours\n"}


def test_a_second_opener_is_refused_until_the_first_is_closed(open_journal: Open, folder: Path) -> None:
    first = open_journal()
    with pytest.raises(StateError) as caught:
        open_journal()
    assert caught.value.message == f"another process appends to `{folder}` as `{WRITER}`"
    first.close()
    open_journal()


def test_two_writers_share_a_folder(folder: Path) -> None:
    one, two = Journal(folder, "decide-1", FakeClock()), Journal(folder, "decide-2", FakeClock())
    assert [one.append(an_entry()).seq, two.append(an_entry()).seq] == [1, 1]  # type: ignore[union-attr]
    one.close()
    two.close()
    assert [chain.writer for chain in verify(folder).chains] == ["decide-1", "decide-2"]


@pytest.mark.parametrize("place", ["below a file", "open to others", "a link"])
def test_an_unusable_folder_is_refused(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "journal"
    if place == "below a file":
        folder.touch()
        folder = folder / "journal"
    elif place == "a link":
        (tmp_path / "real").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "real")
    else:
        folder.mkdir(mode=0o755)
    with pytest.raises(StateError) as caught:
        Journal(folder, WRITER, FakeClock())
    assert caught.value.message.startswith(f"the journal folder `{folder}` is unusable: ")
    assert caught.value.remedy == "it is a folder of your own, of mode 0700, on a disk with space"


def test_the_writer_of_a_role_is_stable_in_a_folder_and_unlike_in_another(tmp_path: Path) -> None:
    ids = iter(["0a1b", "2c3d"])
    make = lambda: next(ids)  # noqa: E731
    names = [writer_name(tmp_path / folder, role, make) for folder, role in ("ax", "ay", "ax", "bx")]
    assert names == ["x-0a1b", "y-0a1b", "x-0a1b", "x-2c3d"]


def test_what_was_killed_while_it_named_itself_spoils_no_name(tmp_path: Path) -> None:
    (tmp_path / f".id.{os.getpid()}").write_text("0a1b")
    assert writer_name(tmp_path, "serve", lambda: "2c3d") == "serve-2c3d"


def test_an_id_that_was_damaged_is_refused(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("../..")
    with pytest.raises(PolicydError, match="is no name of a writer"):
        writer_name(tmp_path, "serve", lambda: "0a1b")


# ---- failing


FULL = "No space left on device"


def test_a_full_disk_refuses_leaves_nothing_half_written_and_goes_on_when_there_is_space(
    open_journal: Open, folder: Path
) -> None:
    disk, clock = FailingDisk(), FakeClock(NOON)
    journal = open_journal(clock, disk=disk)
    journal.append(an_entry())
    before = raw_lines(folder)
    disk.space = 100
    for _ in range(3):
        with pytest.raises(JournalError):
            journal.append(an_entry())
        assert raw_lines(folder) == before
        clock.advance(1)
    assert journal.trouble() == (
        f"the journal in `{folder}` takes no record: {FULL}; make space, or have the folder writable"
    )
    disk.space = None
    assert not journal.trouble()
    assert journal.append(an_entry()).seq == 3  # type: ignore[union-attr]
    (gap,) = details(folder)
    assert gap == {
        "operation": "journal.gap",
        "refused": 3,
        "since": "2026-11-23T12:00:00Z",
        "until": "2026-11-23T12:00:02Z",
        "reason": f"the journal in `{folder}` takes no record: only 100 of {len(before[0])} bytes were taken",
    }
    assert verify(folder).problems == ()


def test_when_even_cutting_fails_nothing_is_taken_until_it_has_been_cut(open_journal: Open, folder: Path) -> None:
    disk = FailingDisk()
    journal = open_journal(disk=disk)
    journal.append(an_entry())
    disk.space, disk.broken = 10, {"truncate"}
    with pytest.raises(JournalError):
        journal.append(an_entry())
    disk.space = None
    with pytest.raises(JournalError, match="Input/output error"):
        journal.append(an_entry())
    disk.broken = set()
    assert journal.append(an_entry()).seq == 3  # type: ignore[union-attr]
    assert [record.kind for record in records(folder)] == ["decision", "operation", "decision"]


def test_on_full_drop_lets_the_caller_go_on_and_counts(open_journal: Open, folder: Path) -> None:
    disk = FailingDisk()
    journal = open_journal(disk=disk, on_full="drop")
    disk.space = 0
    assert [journal.append(an_entry()), journal.append(an_entry())] == [None, None]
    disk.space = None
    assert journal.append(an_entry()).seq == 2  # type: ignore[union-attr]
    assert [gap["dropped"] for gap in details(folder)] == [2]


@pytest.mark.parametrize("kind", ["issuance", "change", "operation"])
def test_on_full_drop_is_for_decisions_and_nothing_else_goes_on_without_its_record(
    open_journal: Open, folder: Path, kind: Kind
) -> None:
    disk = FailingDisk()
    journal = open_journal(disk=disk, on_full="drop")
    disk.space = 0
    with pytest.raises(JournalError, match=FULL):
        journal.append(an_entry(kind=kind))
    told = journal.keep_all([an_entry(), an_entry(kind=kind), an_entry()])
    assert [one is None for one in told] == [True, False, True]
    disk.space = None
    assert not journal.trouble()
    assert [(gap["dropped"], gap["refused"]) for gap in details(folder)] == [(2, 2)]


def test_an_entry_without_a_line_is_refused_and_the_next_one_is_kept(open_journal: Open, folder: Path) -> None:
    journal = open_journal()
    with pytest.raises(JournalError, match="cannot be written as JSON"):
        journal.append(an_entry(request_id="\ud800"))
    assert journal.append(an_entry()).seq == 2  # type: ignore[union-attr]
    assert [gap["refused"] for gap in details(folder)] == [1]


def test_a_full_buffer_refuses_and_what_waits_is_written_when_there_is_space(open_journal: Open, folder: Path) -> None:
    disk = FailingDisk()
    journal = open_journal(disk=disk, durability="async", buffer_bytes=1500)
    disk.space = 0
    journal.append(an_entry())
    wait_until(lambda: FULL in journal.trouble())
    journal.append(an_entry())
    with pytest.raises(JournalError, match=f"the journal's buffer of 1500 bytes is full: .*{FULL}"):
        journal.append(an_entry())
    assert journal.trouble()
    disk.space = None
    journal.close()
    assert [record.seq for record in records(folder)] == [1, 2]
    assert verify(folder).problems == ()


@pytest.mark.parametrize("durability", ["written", "async"])
def test_a_segment_that_was_removed_is_replaced(open_journal: Open, folder: Path, durability: str) -> None:
    journal = open_journal(durability=durability)
    journal.append(an_entry())
    segment = folder / segment_name(WRITER, 1)
    wait_until(lambda: segment.exists() and segment.stat().st_size > 0)
    segment.unlink()
    assert not journal.trouble()
    assert journal.append(an_entry()).seq == 2  # type: ignore[union-attr]
    journal.close()
    assert [segment.first_seq for segment in list_segments(folder)[WRITER]] == [2]


def test_a_closed_journal_takes_nothing(open_journal: Open) -> None:
    journal = open_journal()
    journal.close()
    journal.close()
    assert journal.trouble() == "the journal is closed"
    with pytest.raises(JournalError, match="the journal is closed"):
        journal.append(an_entry())


def test_closing_leaves_no_descriptor_open(folder: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for durability in ("written", "async"):
        journal = Journal(folder, WRITER, FakeClock(), durability=durability)  # type: ignore[arg-type]
        journal.append(an_entry())
        journal.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
