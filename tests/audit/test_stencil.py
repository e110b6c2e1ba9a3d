"""Entries that are alike: filled in they are what encoding each would make, and are kept together or not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from policyd.audit.journal import Journal
from policyd.audit.masking import MASK, mask
from policyd.audit.record import MAX_LINE_BYTES, Entry, Fault, encode_entry
from policyd.audit.stencil import Own, Stencil
from policyd.audit.verify import verify
from policyd.errors import JournalError
from tests.audit.samples import WRITER, an_entry, records
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FailingDisk

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
MICROS = int(NOON.timestamp()) * 1_000_000
texts = st.text(max_size=20) | st.sampled_from([',"request_id":"@"', ',"decision_id":"@"', "@", '"', "eyJhbGciOi.x.y"])
contexts = st.recursive(texts, lambda inner: st.dictionaries(texts, inner, max_size=3), max_leaves=6)
ids = st.sampled_from(
    ["", "0af7651916cd43dd", "r-1", 'q"\\', "eyJhbGciOiJ9.eyJzdWIi", "4b4613d7-14ea-4b04-b833-9cd0c0bb8add"]
)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    return Entry(
        time=NOON,
        kind=draw(st.sampled_from(["decision", "operation"])),
        decision=draw(st.sampled_from([None, "allow", "deny"])),
        status=draw(st.sampled_from([0, 403])),
        principal=draw(texts),
        reasons=tuple(draw(st.lists(texts, max_size=2))),
        errors=tuple(Fault(one, one) for one in draw(st.lists(texts, max_size=1))),
        context=draw(st.dictionaries(texts, contexts, max_size=3)),
        revision=draw(texts),
        proxy=draw(texts),
        cached=draw(st.booleans()),
        duration_us=draw(st.integers(0, 9)),
        detail=draw(st.dictionaries(texts, texts, max_size=1)),
        decided_by=draw(st.sampled_from(["", "proxy"])),
    )


@given(entries(), st.integers(0, 10**13), st.tuples(ids, ids, ids, ids))
def test_what_a_stencil_gives_is_what_encoding_the_whole_entry_gives(
    entry: Entry, micros: int, given_ids: tuple[str, str, str, str]
) -> None:
    clean = mask(entry)
    when = NOON + timedelta(microseconds=micros)
    names = ("decision_id", "request_id", "trace_id", "span_id")
    whole = replace(clean, time=when, **dict(zip(names, given_ids, strict=True)))

    assert Stencil(clean).filled(Own(MICROS + micros, *given_ids)) == encode_entry(mask(whole))


def test_an_entry_that_leaves_no_room_for_its_place_has_no_stencil() -> None:
    with pytest.raises(JournalError):
        Stencil(an_entry(context={"path": "x" * (MAX_LINE_BYTES - 2_000)}))


def journal_at(folder: Path, **options: Any) -> Journal:
    return Journal(folder, WRITER, FakeClock(), **options)


@pytest.mark.parametrize("durability", ["written", "fsync", "async"])
def test_what_comes_together_is_kept_in_its_order(tmp_path: Path, durability: Any) -> None:
    folder = tmp_path / "journal"
    journal = journal_at(folder, durability=durability, disk=FailingDisk())
    one, other = (journal.stencil(an_entry(reasons=(name,))) for name in ("a", "b"))

    journal.keep_filled([(one, Own(MICROS, "0a")), (other, Own(MICROS + 1, "0b")), (one, Own(MICROS + 2, "0c"))])
    journal.append(an_entry(reasons=("c",)))
    journal.keep_filled([])
    journal.close()

    assert [(found.seq, *found.reasons) for found in records(folder)] == [(1, "a"), (2, "b"), (3, "a"), (4, "c")]
    assert [found.decision_id for found in records(folder)][:3] == ["0a", "0b", "0c"]
    assert verify(folder).problems == ()


@pytest.mark.parametrize("durability", ["written", "fsync"])
def test_of_what_comes_together_a_full_disk_keeps_nothing_and_it_may_come_again(
    tmp_path: Path, durability: Any
) -> None:
    disk, folder = FailingDisk(), tmp_path / "journal"
    journal = journal_at(folder, durability=durability, disk=disk)
    filled = [(journal.stencil(an_entry()), Own(MICROS + number)) for number in range(5)]
    disk.space = 900

    with pytest.raises(JournalError):
        journal.keep_filled(filled)
    disk.space = None
    journal.keep_filled(filled)
    journal.close()

    assert [found.seq for found in records(folder)] == [1, 2, 3, 4, 5]  # and nothing was missed
    assert verify(folder).problems == ()


def test_what_very_many_bytes_come_to_is_kept_too(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    journal = journal_at(folder)
    large = journal.stencil(an_entry(context={"path": "/" + "x" * 500_000}))

    journal.keep_filled([(large, Own(MICROS))] * 10)
    journal.close()

    assert [found.seq for found in records(folder)] == list(range(1, 11))


@pytest.mark.parametrize("durability", ["written", "fsync"])
def test_of_very_many_bytes_that_find_no_space_none_are_there_twice_when_they_come_again(
    tmp_path: Path, durability: Any
) -> None:
    disk, folder = FailingDisk(), tmp_path / "journal"
    journal = journal_at(folder, durability=durability, disk=disk)
    filled = [(journal.stencil(an_entry(context={"path": "/" + "x" * 500_000})), Own(MICROS))] * 10
    disk.space = 4 << 20

    with pytest.raises(JournalError):
        journal.keep_filled(filled)
    disk.space = None
    journal.keep_filled(filled)
    journal.close()

    assert [found.seq for found in records(folder)] == list(range(1, 11))


def test_no_stencil_of_a_journal_holds_a_secret(tmp_path: Path) -> None:
    journal = journal_at(tmp_path / "journal")
    token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
    stencil = journal.stencil(an_entry(context={"request": {"path": f"/{token}"}}))

    journal.keep_filled([(stencil, Own(MICROS, request_id=token))])
    journal.close()

    [found] = records(tmp_path / "journal")
    assert (found.context["request"]["path"], found.request_id) == (f"/{MASK}", MASK)
