"""Finished segments are sealed and, when their time has come, retired; whatever happens in between."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from policyd.audit.pack import Packed, pack
from policyd.audit.read import Follower, ends, newest
from policyd.audit.retention import Keep
from policyd.audit.sealer import pack_apart
from policyd.audit.seals_file import SealsFile
from policyd.audit.segments import Segment, list_segments, segment_name
from policyd.audit.verify_writer import Chain
from policyd.ca.sealing import SealingKeys
from policyd.errors import BrokenRecord, JournalError
from tests.audit.samples import WRITER, an_entry, raw_lines
from tests.audit.sealing import AUTHORITY, Sealed, issuer
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FailingDisk

DAY = 86_400.0


def unbroken(error: BrokenRecord) -> None:
    raise AssertionError(error)


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path / "journal", FakeClock(datetime.now(UTC)))


def names(sealed: Sealed, suffix: str) -> list[str]:
    return sorted(path.name for path in sealed.folder.glob(f"*.{suffix}") if path.name != "seals.jsonl")


def seqs(sealed: Sealed) -> list[int]:
    return [line.record.seq for line in newest(sealed.folder, ends(sealed.folder), unbroken)][::-1]


def test_a_finished_segment_is_sealed_and_reads_as_before(sealed: Sealed) -> None:
    sealed.write(7)
    lines, positions = raw_lines(sealed.folder), ends(sealed.folder)
    assert sealed.sealer.turn() == 2
    assert names(sealed, "jsonl") == [segment_name(WRITER, 7)]
    assert [name.partition(".")[0] for name in names(sealed, "sealed")] == [
        segment_name(WRITER, first).partition(".")[0] for first in (1, 4)
    ]
    assert [line.raw for line in newest(sealed.folder, positions, unbroken)] == lines[::-1]
    assert [line.raw for line in Follower(sealed.folder, {}, unbroken).poll()] == lines
    verdict = sealed.verify()
    assert (verdict.chains, verdict.problems) == ((Chain(WRITER, 1, 7, sealed=6),), ())
    assert sealed.sealer.trouble == ""
    assert sealed.sealer.turn() == 0


def test_the_next_writer_goes_on_behind_what_is_sealed(sealed: Sealed) -> None:
    sealed.write(7)
    sealed.sealer.turn()
    sealed.write(7)
    sealed.sealer.turn()
    assert seqs(sealed) == list(range(1, 15))
    assert sealed.verify().problems == ()


def test_the_seal_binds_all_writers(sealed: Sealed) -> None:
    sealed.write(4, "decide-1")
    sealed.sealer.turn()
    sealed.write(7, "decide-2")
    sealed.sealer.turn()
    heads = SealsFile(sealed.folder, FailingDisk()).end.heads
    assert {writer: head.seq for writer, head in heads.items()} == {"decide-1": 3, "decide-2": 6}


def test_only_the_owner_may_read_what_is_sealed(sealed: Sealed) -> None:
    sealed.write(4)
    sealed.sealer.turn()
    assert {path.stat().st_mode & 0o777 for path in sealed.folder.iterdir()} == {0o600}


def test_packing_in_a_process_of_its_own_is_the_same(sealed: Sealed, tmp_path: Path) -> None:
    sealed.write(4)
    (segment, _) = list_segments(sealed.folder)[WRITER]
    apart = pack_apart(segment)
    segment.sealed.path.unlink()
    assert apart == pack(segment)
    (tmp_path / segment.path.name).write_bytes(b"else\n")
    with pytest.raises(BrokenRecord, match="no record"):
        pack_apart(Segment(WRITER, 1, tmp_path / segment.path.name))
    with pytest.raises(JournalError, match="No such file"):
        pack_apart(Segment(WRITER, 1, tmp_path / segment_name(WRITER, 9)))


# ---- writers that are gone


def test_what_a_writer_that_is_gone_left_is_sealed_when_it_is_old(sealed: Sealed) -> None:
    sealed.write(2, "decide-7")
    assert sealed.sealer.turn() == 0
    sealed.clock.advance(DAY)
    assert sealed.sealer.turn() == 1
    assert sealed.verify().chains == (Chain("decide-7", 1, 2, sealed=2),)
    sealed.write(1, "decide-7")
    assert seqs(sealed) == [1, 2, 3]


def test_a_torn_end_that_a_writer_left_is_cut_said_and_sealed(sealed: Sealed) -> None:
    sealed.write(2)
    with (sealed.folder / segment_name(WRITER, 1)).open("ab") as file:
        file.write(b'{"time":')
    sealed.clock.advance(DAY)
    assert sealed.sealer.turn() == 1
    verdict = sealed.verify()
    assert (verdict.chains, verdict.problems) == ((Chain(WRITER, 1, 3, sealed=2),), ())
    (line, *_) = newest(sealed.folder, ends(sealed.folder), unbroken)
    assert line.record.detail["operation"] == "journal.recovered"


def test_a_writer_that_rests_keeps_its_segment(sealed: Sealed) -> None:
    journal = sealed.journal()
    journal.append(an_entry(time=sealed.clock()))
    sealed.clock.advance(DAY)
    assert sealed.sealer.turn() == 0
    assert sealed.sealer.trouble == ""
    journal.turn()
    assert sealed.sealer.turn() == 1
    journal.append(an_entry(time=sealed.clock()))
    journal.close()
    assert sealed.verify().chains == (Chain(WRITER, 1, 2, sealed=1),)


# ---- what is not whole


def test_what_was_changed_before_it_was_sealed_is_not_sealed_and_said(sealed: Sealed) -> None:
    sealed.write(7)
    path = sealed.folder / segment_name(WRITER, 4)
    path.write_bytes(path.read_bytes().replace(b'"allow"', b'"deny"', 1))
    assert sealed.sealer.turn() == 1
    assert sealed.sealer.trouble == (
        f"`{path}` is not sealed: record 5 does not continue what stands before it: one of the two was changed"
    )
    assert path.exists()
    (problem,) = sealed.verify().problems
    assert (problem.file, problem.line) == (str(path), 2)


def test_what_is_missing_before_a_segment_is_part_of_its_seal(sealed: Sealed) -> None:
    sealed.write(4)
    sealed.sealer.turn()
    sealed.write(6)
    (sealed.folder / segment_name(WRITER, 4)).unlink()
    sealed.sealer.turn()
    (problem,) = sealed.verify().problems
    assert problem.message == "records 4 to 6 were missing when this segment was sealed"


def test_what_is_missing_at_the_very_beginning_is_too(sealed: Sealed) -> None:
    sealed.write(7)
    (sealed.folder / segment_name(WRITER, 1)).unlink()
    sealed.sealer.turn()
    (problem,) = sealed.verify().problems
    assert problem.message == "records 1 to 3 were missing when this segment was sealed"


def test_a_segment_whose_beginning_was_written_anew_does_not_follow_what_is_sealed(sealed: Sealed) -> None:
    sealed.write(4)
    sealed.sealer.turn()
    sealed.write(6)
    other = Sealed(sealed.folder.parent / "other", FakeClock())
    other.write(10)
    path = sealed.folder / segment_name(WRITER, 4)
    path.write_bytes((other.folder / path.name).read_bytes())
    sealed.sealer.turn()
    assert "record 4 does not continue what was sealed before it" in sealed.sealer.trouble


# ---- interruptions


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", ["sync_folder", "write", "sync", "remove"])
def test_wherever_sealing_is_interrupted_the_next_start_goes_on(tmp_path: Path, step: str) -> None:
    class Disk(FailingDisk):
        left = 1

    def die(self: Disk, *arguments: object) -> object:
        if self.left:
            self.left -= 1
            raise Killed
        return getattr(FailingDisk, step)(self, *arguments)

    sealed = Sealed(tmp_path / "journal", FakeClock(datetime.now(UTC)))
    sealed.write(7)
    lines = raw_lines(sealed.folder)
    disk = type("Dying", (Disk,), {step: die})()
    with pytest.raises(Killed):
        sealed.new_sealer(disk=disk).turn()
    assert [line.raw for line in newest(sealed.folder, ends(sealed.folder), unbroken)] == lines[::-1]
    sealed.new_sealer().turn()
    assert [line.raw for line in newest(sealed.folder, ends(sealed.folder), unbroken)] == lines[::-1]
    verdict = sealed.verify()
    assert (verdict.chains, verdict.problems) == ((Chain(WRITER, 1, 7, sealed=6),), ())
    assert names(sealed, "jsonl") == [segment_name(WRITER, 7)]


def test_a_torn_seal_was_never_acted_upon_and_is_cut(sealed: Sealed) -> None:
    sealed.write(4)
    sealed.sealer.turn()
    with (sealed.folder / "seals.jsonl").open("ab") as file:
        file.write(b'{"number":3,')
    sealed.write(3)
    sealed.new_sealer().turn()
    verdict = sealed.verify()
    assert (verdict.chains, verdict.problems) == ((Chain(WRITER, 1, 7, sealed=6),), ())


def test_a_full_disk_holds_sealing_up_and_loses_nothing(tmp_path: Path) -> None:
    disk = FailingDisk()
    sealed = Sealed(tmp_path / "journal", FakeClock(), disk=disk)
    sealed.write(7)
    disk.space = 10
    assert sealed.sealer.turn() == 0
    assert "cannot be sealed" in sealed.sealer.trouble
    assert seqs(sealed) == list(range(1, 8))
    disk.space = None
    sealed.sealer.turn()
    assert sealed.sealer.trouble == ""
    assert sealed.verify().chains == (Chain(WRITER, 1, 7, sealed=6),)


def test_a_packer_that_fails_is_tried_again(tmp_path: Path) -> None:
    failures = ["no space"]

    def sometimes(segment: Segment) -> Packed:
        if failures:
            raise JournalError(failures.pop())
        return pack(segment)

    sealed = Sealed(tmp_path / "journal", FakeClock(), pack=sometimes)
    sealed.write(4)
    assert (sealed.sealer.turn(), sealed.sealer.trouble) == (0, "no space")
    assert (sealed.sealer.turn(), sealed.sealer.trouble) == (1, "")


def test_a_clock_that_is_set_back_gets_a_key_of_its_own_and_all_stays_provable(sealed: Sealed) -> None:
    sealed.write(4)
    sealed.sealer.turn()
    sealed.clock.advance(-1800)
    sealed.write(4)
    sealed.sealer.turn()
    sealed.clock.advance(7200)
    sealed.write(4)
    sealed.sealer.turn()
    assert sealed.verify().problems == ()
    kinds = [seal.kind for seal in SealsFile(sealed.folder, FailingDisk())._seals]
    assert kinds == ["key", "seal", "key", "seal", "key", "seal"]


def test_foreign_files_are_neither_sealed_nor_removed(sealed: Sealed) -> None:
    sealed.write(4)
    (sealed.folder / "notes.txt").write_text("mine")
    (sealed.folder / "serve-1.jsonl").write_text("mine")
    sealed.clock.advance(30 * DAY)
    sealed.sealer.turn()
    assert [(sealed.folder / name).read_text() for name in ("notes.txt", "serve-1.jsonl")] == ["mine", "mine"]
    assert sealed.sealer.trouble == ""
    assert sealed.verify().problems == ()


def test_seals_that_cannot_be_read_hold_sealing_up_and_are_said(sealed: Sealed) -> None:
    sealed.write(4)
    sealed.sealer.turn()
    file = sealed.folder / "seals.jsonl"
    file.write_bytes(b"rubbish\n" + file.read_bytes())
    again = sealed.new_sealer()
    assert again.turn() == 0
    assert again.trouble.startswith(f"`{file}`, line 1: no seal")


def test_old_seals_are_pruned_once_all_that_they_sealed_is_retired(tmp_path: Path) -> None:
    sealed = Sealed(tmp_path / "journal", FakeClock(datetime.now(UTC)))
    for _ in range(5):
        sealed.write(4)
        sealed.clock.advance(3600)
        sealed.sealer.turn()
    sealed.clock.advance(8 * DAY)
    sealed.sealer.turn()
    sealed.write(4)
    sealed.sealer.turn()
    before = SealsFile(sealed.folder, FailingDisk(), prune_lines=4)
    before.prune(sealed.clock(), SealingKeys(issuer(AUTHORITY, sealed.clock), sealed.clock))
    after = SealsFile(sealed.folder, FailingDisk())
    assert after.end == before.end
    assert len((sealed.folder / "seals.jsonl").read_bytes().splitlines()) < 6
    assert sealed.verify().problems == ()
    (problem,) = sealed.verify(noted=(2, "0" * 64)).problems
    assert problem.message == f"seal 2 cannot be compared: seals before {after.first} were pruned"


class Unreplaceable(FailingDisk):
    """A medium on which no file is replaced."""

    def replace(self, path: Path, content: bytes) -> None:
        raise OSError("no")


def test_seals_that_cannot_be_pruned_say_so_once(sealed: Sealed) -> None:
    for _ in range(2):
        sealed.write(4)
        sealed.sealer.turn()
        sealed.clock.advance(8 * DAY)
    keys = SealingKeys(issuer(AUTHORITY, sealed.clock), sealed.clock)
    seals = SealsFile(sealed.folder, Unreplaceable(), prune_lines=1)
    for _ in range(3):
        with pytest.raises(OSError, match="no"):
            seals.prune(sealed.clock(), keys)
    lines = (sealed.folder / "seals.jsonl").read_bytes().splitlines()
    assert sum(b'"pruned":' in line for line in lines) == 1
    assert sealed.verify().problems == ()


def test_a_beginning_that_was_cut_off_with_what_it_sealed_is_found(sealed: Sealed) -> None:
    for _ in range(2):
        sealed.write(4)
        sealed.sealer.turn()
        sealed.clock.advance(7200)  # a key of its own for each seal
    sealed.write(1)
    seals = sealed.folder / "seals.jsonl"
    _, _, *rest = seals.read_bytes().splitlines(keepends=True)
    assert b'"kind":"key"' in rest[0]
    seals.write_bytes(b"".join(rest))
    (sealed.folder / segment_name(WRITER, 1)).with_suffix(".sealed").unlink()
    problem = sealed.verify().problems[0]
    assert (problem.file, problem.line) == (str(seals), 1)
    assert problem.message == "the seals begin with 3, and none says that those before were pruned"


def test_a_seal_that_could_be_neither_written_nor_cut_off_spoils_no_other(tmp_path: Path) -> None:
    disk = FailingDisk()
    sealed = Sealed(tmp_path / "journal", FakeClock(), disk=disk)
    sealed.write(4)
    disk.space, disk.broken = 30, {"truncate"}
    sealed.sealer.turn()
    disk.space, disk.broken = None, set()
    sealed.sealer.turn()
    assert sealed.verify().problems == ()


# ---- retention


def test_what_is_older_than_is_retained_goes_and_that_is_signed(sealed: Sealed) -> None:
    sealed.write(4)
    sealed.sealer.turn()
    sealed.clock.advance(8 * DAY)
    sealed.write(3)
    sealed.sealer.turn()
    assert seqs(sealed) == [5, 6, 7]
    assert sealed.verify().chains == (Chain(WRITER, 5, 7),)
    assert sealed.verify().problems == ()


def test_a_writer_of_which_everything_is_retired_goes_on_gaplessly(sealed: Sealed) -> None:
    sealed.write(4)
    sealed.clock.advance(8 * DAY)
    sealed.sealer.turn()
    assert seqs(sealed) == []
    assert names(sealed, "sealed") == []
    sealed.write(1)
    assert seqs(sealed) == [5]
    for path in sealed.folder.glob(f"{WRITER}-*.jsonl"):
        path.unlink()
    sealed.write(1)
    assert seqs(sealed) == [5]
    assert sealed.verify().problems == ()


def test_what_takes_too_much_room_goes_the_oldest_first(sealed: Sealed) -> None:
    sealed.write(10)
    sealed.sealer.turn()
    size = (sealed.folder / segment_name(WRITER, 1)).with_suffix(".sealed").stat().st_size
    total = sum(path.stat().st_size for path in sealed.folder.iterdir())
    sealed.keep = Keep(max_bytes=total - size)
    sealed.new_sealer().turn()
    assert seqs(sealed) == list(range(4, 11))


def test_what_goes_for_its_age_makes_room_before_more_goes_for_it(sealed: Sealed) -> None:
    sealed.write(45)
    sealed.sealer.turn()
    sealed.clock.advance(8 * DAY)
    sealed.write(7)
    sealed.new_sealer(keep=Keep(retain=30 * DAY)).turn()  # seals, and removes nothing
    total = sum(path.stat().st_size for path in sealed.folder.iterdir())
    sealed.keep = Keep(max_bytes=total)  # which the seals of what goes exceed, unless it counts no more
    sealed.new_sealer().turn()
    assert seqs(sealed) == list(range(46, 53))


def test_nothing_goes_that_an_export_has_not_taken(sealed: Sealed) -> None:
    sealed.write(7)
    sealed.sealer.turn()
    sealed.clock.advance(8 * DAY)
    sealed.taken = {}
    sealed.sealer.turn()
    assert seqs(sealed) == list(range(1, 8))
    sealed.taken = {WRITER: 3}
    sealed.sealer.turn()
    assert seqs(sealed) == [4, 5, 6, 7]


def test_nothing_goes_that_is_not_sealed(sealed: Sealed) -> None:
    sealed.write(7)
    path = sealed.folder / segment_name(WRITER, 1)
    path.write_bytes(path.read_bytes().replace(b'"allow"', b'"deny"', 1))
    sealed.keep = Keep(max_bytes=1)
    sealed.clock.advance(30 * DAY)
    sealed.new_sealer().turn()
    assert path.exists()


def test_what_was_cut_off_and_kept_aside_goes_too(sealed: Sealed) -> None:
    sealed.write(1)
    aside = sealed.folder / f"{segment_name(WRITER, 1)}.torn-1"
    aside.touch()
    old = sealed.clock().timestamp() - 8 * DAY
    os.utime(aside, (old, old))
    sealed.sealer.turn()
    assert not aside.exists()


def test_what_a_sidecar_told_late_does_not_make_the_segment_old(sealed: Sealed) -> None:
    journal = sealed.journal()
    for _ in range(2):
        journal.append(an_entry(time=sealed.clock()))
    journal.append(an_entry(time=sealed.clock() - timedelta(days=6, hours=23), decided_by="proxy"))
    journal.close()
    sealed.write(1)
    sealed.sealer.turn()
    sealed.clock.advance(2 * 3600)
    sealed.sealer.turn()
    assert seqs(sealed) == [1, 2, 3, 4]


def test_what_is_retired_amid_what_stays_since_a_clock_was_ahead_is_no_gap(sealed: Sealed) -> None:
    sealed.clock.advance(30 * DAY)
    sealed.write(3)
    sealed.clock.advance(-30 * DAY)
    sealed.write(3)
    sealed.clock.advance(8 * DAY)
    sealed.write(4)
    sealed.sealer.turn()
    sealed.sealer.turn()
    assert seqs(sealed) == [1, 2, 3, 7, 8, 9, 10]
    verdict = sealed.verify()
    assert (verdict.chains, verdict.problems) == ((Chain(WRITER, 1, 10, sealed=9, retired=3),), ())


def test_what_cannot_be_packed_does_not_keep_what_is_sealed_from_going(tmp_path: Path) -> None:
    failures: list[str] = []

    def sometimes(segment: Segment) -> Packed:
        if failures:
            raise JournalError(failures[0])
        return pack(segment)

    sealed = Sealed(tmp_path / "journal", FakeClock(datetime.now(UTC)), pack=sometimes)
    sealed.write(4)
    sealed.sealer.turn()
    failures.append("no space")
    sealed.clock.advance(8 * DAY)
    sealed.write(4)
    assert (sealed.sealer.turn(), sealed.sealer.trouble) == (0, "no space")
    assert seqs(sealed) == [4, 5, 6, 7, 8]
