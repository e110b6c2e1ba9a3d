"""Entries that come together, each with a caller of its own: one write, one commit, and everyone is told the truth."""

from __future__ import annotations

import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.audit.journal import Journal
from policyd.audit.record import MAX_LINE_BYTES, Entry
from policyd.audit.verify import verify
from policyd.errors import JournalError
from tests.audit.samples import WRITER, an_entry, records
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FailingDisk

DURABILITIES = ("written", "fsync", "async")
KEPT = ("written", "fsync")


def journal_at(folder: Path, **options: Any) -> Journal:
    return Journal(folder, WRITER, FakeClock(), **options)


def entries(count: int, word: str = "a", **fields: Any) -> list[Entry]:
    return [an_entry(request_id=f"{word}-{number}", **fields) for number in range(count)]


def decided(folder: Path) -> list[str]:
    return [one.request_id for one in records(folder) if one.kind == "decision"]


@pytest.mark.parametrize("durability", DURABILITIES)
def test_entries_that_come_together_make_the_lines_they_make_alone(tmp_path: Path, durability: Any) -> None:
    together, alone = (journal_at(tmp_path / name, durability=durability) for name in ("together", "alone"))
    assert together.keep_all(entries(5)) == [None] * 5
    assert together.keep_all([]) == []
    for entry in entries(5):
        alone.keep(entry)
    together.close()
    alone.close()
    [one], [other] = (list((tmp_path / name).glob("*.jsonl")) for name in ("together", "alone"))
    assert one.read_bytes() == other.read_bytes()


def test_under_fsync_they_share_one_commit_which_who_calls_makes(tmp_path: Path) -> None:
    disk = FailingDisk()
    journal = journal_at(tmp_path / "journal", durability="fsync", disk=disk)
    assert journal.keep_all(entries(20)) == [None] * 20
    assert disk.synced == 1
    assert not [one for one in threading.enumerate() if one.name == "policyd-commit"]
    journal.close()


@pytest.mark.parametrize("durability", KEPT)
def test_one_that_has_no_line_spoils_no_other(tmp_path: Path, durability: Any) -> None:
    folder = tmp_path / "journal"
    journal = journal_at(folder, durability=durability)
    long = an_entry(context={"path": "/" + "x" * (MAX_LINE_BYTES - 1000)})
    first, second, third = journal.keep_all([*entries(1, "a"), long, *entries(1, "b")])
    assert (first, third) == (None, None)
    assert "a record has at most" in str(second)
    journal.close()
    assert decided(folder) == ["a-0", "b-0"]


@pytest.mark.parametrize("durability", KEPT)
@pytest.mark.parametrize(("on_full", "word"), [("deny", "refused"), ("drop", "dropped")])
def test_a_full_disk_is_told_to_all_or_counted(tmp_path: Path, durability: Any, on_full: Any, word: str) -> None:
    disk, folder = FailingDisk(), tmp_path / "journal"
    journal = journal_at(folder, durability=durability, on_full=on_full, disk=disk)
    disk.space = 900
    told = journal.keep_all(entries(5))
    assert [one is None for one in told] == [on_full == "drop"] * 5
    disk.space = None
    assert journal.keep_all(entries(2, "b")) == [None, None]
    journal.close()
    gap, *rest = records(folder)
    assert (gap.detail["operation"], gap.detail[word]) == ("journal.gap", 5)
    assert [one.request_id for one in rest] == ["b-0", "b-1"]
    assert verify(folder).problems == ()


@pytest.mark.parametrize("durability", KEPT)
def test_what_the_journal_says_of_itself_is_none_of_them(tmp_path: Path, durability: Any) -> None:
    disk, folder = FailingDisk(), tmp_path / "journal"
    journal = journal_at(folder)
    journal.keep(an_entry(request_id="first"))
    journal.close()
    [segment] = folder.glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b'{"torn')
    disk.space = 0
    journal = journal_at(folder, durability=durability, disk=disk)
    assert [one is None for one in journal.keep_all(entries(2))] == [False] * 2
    disk.space = 450  # for the note of what was torn, and not for that of the gap behind it
    assert [one is None for one in journal.keep_all(entries(2, "b"))] == [False] * 2
    disk.space = None
    assert journal.keep_all(entries(2, "c")) == [None, None]
    journal.close()
    said = [one.detail.get("operation") for one in records(folder)]
    assert said == [None, "journal.recovered", "journal.gap", None, None]
    assert decided(folder) == ["first", "c-0", "c-1"]
    assert verify(folder).problems == ()


def test_of_very_many_bytes_those_are_refused_that_are_not_kept(tmp_path: Path) -> None:
    disk, folder = FailingDisk(), tmp_path / "journal"
    journal = journal_at(folder, disk=disk)
    disk.space = 3 << 20
    told = journal.keep_all(entries(10, context={"path": "/" + "x" * 500_000}))
    assert [one is None for one in told] == [True] * 5 + [False] * 5
    disk.space = None
    journal.close()
    assert decided(folder) == [f"a-{number}" for number in range(5)]


def test_when_it_is_closed_all_are_refused(tmp_path: Path) -> None:
    journal = journal_at(tmp_path / "journal")
    journal.close()
    assert [str(one) for one in journal.keep_all(entries(2))] == ["the journal is closed"] * 2


@pytest.mark.parametrize("durability", KEPT)
def test_they_come_beside_others_of_other_threads(tmp_path: Path, durability: Any) -> None:
    folder = tmp_path / "journal"
    journal = journal_at(folder, durability=durability)

    def one_by_one() -> None:
        for entry in entries(100, "alone"):
            journal.keep(entry)

    def together(word: str) -> None:
        for number in range(20):
            assert journal.keep_all(entries(5, f"{word}-{number}")) == [None] * 5

    calls: list[tuple[Any, ...]] = [(one_by_one,), (together, "a"), (together, "b")]
    threads = [threading.Thread(target=call, args=arguments) for call, *arguments in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert [one.seq for one in records(folder)] == list(range(1, 301))
    assert verify(folder).problems == ()


step = st.tuples(st.integers(1, 8), st.none() | st.integers(0, 6_000), st.sets(st.sampled_from(["write", "sync"])))


@given(durability=st.sampled_from(KEPT), steps=st.lists(step, max_size=8), large=st.booleans())
def test_who_is_told_that_an_entry_is_kept_finds_it_and_nobody_else(
    durability: Any, steps: list[tuple[int, int | None, set[str]]], large: bool
) -> None:
    with TemporaryDirectory() as name:
        disk, folder, told = FailingDisk(), Path(name) / "journal", list[str]()
        journal = journal_at(folder, durability=durability, disk=disk)
        context = {"path": "/" + "x" * (700_000 if large else 100)}
        for number, (count, space, broken) in enumerate(steps):
            disk.space, disk.broken = space and space * (200 if large else 1), broken
            given_ = entries(count, str(number), context=context)
            outcomes = journal.keep_all(given_)
            told += [entry.request_id for entry, one in zip(given_, outcomes, strict=True) if one is None]
            assert all(one is None or isinstance(one, JournalError) for one in outcomes)
        disk.space, disk.broken = None, set()
        journal.close()
        assert decided(folder) == told
        assert verify(folder).problems == ()
