"""The spool of what policyd has not taken yet: numbers without gaps, a bound, and what survives the agent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.errors import StateError
from proxy.spool import MOST_FRAMES, Spool


def all_of(spool: Spool) -> tuple[int, list[bytes]]:
    return spool.read(1 << 30)


def test_frames_are_numbered_and_read_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")

    assert [spool.add(body) for body in (b"a", b"", b"c" * 1000)] == [1, 2, 3]
    assert all_of(spool) == (1, [b"a", b"", b"c" * 1000])
    spool.kept(2)
    assert (all_of(spool), len(spool)) == ((3, [b"c" * 1000]), 1)
    spool.kept(9)
    assert (all_of(spool), len(spool)) == ((0, []), 0)
    assert spool.add(b"d") == 4


def test_a_read_is_about_as_large_as_wanted_and_one_frame_at_least(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    for body in (b"a" * 100, b"b" * 100, b"c" * 100):
        spool.add(body)

    assert spool.read(1) == (1, [b"a" * 100])
    assert spool.read(250) == (1, [b"a" * 100, b"b" * 100])


def test_what_the_agent_leaves_the_next_one_has(tmp_path: Path) -> None:
    before = Spool(tmp_path / "s", segment_bytes=64)
    for number in range(20):
        before.add(b"%d" % number * 10)
    before.kept(5)
    before.close()

    after = Spool(tmp_path / "s", segment_bytes=64)

    assert after.name == before.name
    first, found = all_of(after)
    assert first <= 6  # of a segment that is not over all is sent again
    assert found[6 - first :] == [b"%d" % number * 10 for number in range(5, 20)]
    assert after.add(b"next") == 21


def test_numbers_go_on_though_all_was_taken(tmp_path: Path) -> None:
    before = Spool(tmp_path / "s")
    before.add(b"a")
    before.kept(1)
    before.close()

    assert Spool(tmp_path / "s").add(b"b") == 2


@pytest.mark.parametrize("broken", [b"\0\0", b"\0\0\0\5\1\2\3\4ab", b"\0\0\0\1\0\0\0\0x"], ids=["head", "cut", "sum"])
def test_what_is_torn_at_the_end_is_left_out(tmp_path: Path, broken: bytes) -> None:
    before = Spool(tmp_path / "s")
    before.add(b"whole")
    before.close()
    [segment] = (tmp_path / "s").glob("*.told")
    segment.write_bytes(segment.read_bytes() + broken)

    after = Spool(tmp_path / "s")

    assert all_of(after) == (1, [b"whole"])
    assert after.add(b"more") == 2
    assert all_of(after) == (1, [b"whole", b"more"])


def test_beyond_its_bound_nothing_is_taken_until_there_is_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", max_bytes=100)

    assert spool.add(b"a" * 80) == 1
    assert spool.add(b"b" * 80) is None
    assert spool.add(b"c") == 2
    spool.kept(1)
    assert spool.add(b"d" * 80) == 3


def test_segments_that_were_taken_are_removed(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", segment_bytes=64)
    for _ in range(50):
        spool.add(b"a" * 30)
    many = len(list((tmp_path / "s").glob("*.told")))

    spool.kept(50)

    assert many > 10
    assert len(list((tmp_path / "s").glob("*.told"))) == 1


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StateError):
        Spool(tmp_path / "file" / "s")


@pytest.mark.parametrize("name", [b"", b"half", b"\xff" * 32, b"\0" * 32])
def test_a_name_that_is_broken_is_made_anew(tmp_path: Path, name: bytes) -> None:
    Spool(tmp_path / "s").close()
    (tmp_path / "s" / "name").write_bytes(name)

    first, second = Spool(tmp_path / "s").name, Spool(tmp_path / "s").name

    assert first == second
    assert len(first) == 32


def test_a_read_has_so_many_frames_at_most(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    for _ in range(MOST_FRAMES + 1):
        spool.add(b"")

    assert len(all_of(spool)[1]) == MOST_FRAMES


def _removed(segment: Path) -> None:
    segment.unlink()


def _cut(segment: Path) -> None:
    segment.write_bytes(b"")


def _changed(segment: Path) -> None:
    segment.write_bytes(segment.read_bytes().replace(b"b", b"x"))


@pytest.mark.parametrize("spoil", [_removed, _cut, _changed])
def test_what_the_disk_does_not_give_back_is_passed_over_and_told(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spool = Spool(tmp_path / "s", segment_bytes=20)
    for body in (b"a" * 10, b"b" * 10, b"c" * 10):
        spool.add(body)
    spoil(tmp_path / "s" / f"{2:020}.told")

    assert all_of(spool) == (1, [b"a" * 10])
    spool.kept(1)
    assert all_of(spool) == (3, [b"c" * 10])
    assert (spool.spoiled, len(spool)) == (1, 1)
    assert spool.add(b"d") == 4


def test_a_spool_whose_file_is_taken_away_goes_on_in_another(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    spool.add(b"a")
    next((tmp_path / "s").glob("*.told")).unlink()

    assert (all_of(spool), spool.spoiled) == ((0, []), 1)
    assert (spool.add(b"b"), all_of(spool)) == (2, (2, [b"b"]))


def test_what_is_no_segment_is_told_and_let_be(tmp_path: Path) -> None:
    before = Spool(tmp_path / "s")
    before.add(b"a")
    before.close()
    folder = tmp_path / "s"
    names = ("abc.told", ".told", "1.told", f"{'9' * 20}.told", f"{'٣' * 20}.told", f"{7:020}.told")
    for name in names[:-1]:
        (folder / name).write_bytes(b"somebody's")
    (folder / names[-1]).mkdir()

    after = Spool(folder)

    assert sorted(after.foreign) == sorted(names)
    assert (all_of(after), after.add(b"b")) == ((1, [b"a"]), 2)
    after.kept(2)
    assert all((folder / name).exists() for name in names)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=40), st.integers(1, 5), st.none()), max_size=40))
def test_whatever_happens_what_is_read_is_what_was_added_and_not_taken(
    tmp_path_factory: pytest.TempPathFactory, steps: list[bytes | int | None]
) -> None:
    """Bytes are added, numbers are taken so many frames at once, None is another agent."""
    folder = tmp_path_factory.mktemp("spool") / "s"
    spool, added, taken = Spool(folder, segment_bytes=50), 0, 0
    bodies: dict[int, bytes] = {}
    for step in steps:
        match step:
            case bytes():
                added += 1
                bodies[added] = step
                assert spool.add(step) == added
            case int():
                taken = min(added, taken + step)
                spool.kept(taken)
            case None:
                spool.close()
                spool = Spool(folder, segment_bytes=50)
        first, found = all_of(spool)
        last = first + len(found) - 1 if found else added
        assert last == added
        assert found == [bodies[seq] for seq in range(first, added + 1) if found]
        assert not found or first <= taken + 1
