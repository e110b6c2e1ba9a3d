"""What was in force can be read back as it was, or it is said that it cannot."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.errors import NotFound, PolicydError, StateError, UsageError
from policyd.sources import revision_store
from policyd.sources.files import digest
from policyd.sources.revision_store import RevisionStore
from policyd.sources.revisions import Kept, changed, find, history, read

START = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)
A, B, AB = "a" * 64, "b" * 64, "ab" + "c" * 62
SCHEMA = "entity Workload;"
REMEDY = "restore it from a backup, or delete it: what it kept can be explained no more"


@dataclass
class Clock:
    """Time that tests move."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **length: float) -> None:
        self.now += timedelta(**length)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "revisions"


def opened(root: Path, clock: Callable[[], datetime]) -> RevisionStore:
    return RevisionStore(root, clock, retain=3600, version="0.1.0")


def files(root: Path) -> set[str]:
    return {path.suffix for path in root.iterdir()}


def test_what_was_in_force_is_read_back_by_the_start_of_its_revision(root: Path, clock: Clock) -> None:
    texts = {"policies/a.cedar": "permit (principal, action, resource);\n", "groups.yaml": "groups: {}\n"}
    kept = opened(root, clock).keep(A, 1, texts, SCHEMA)

    assert (kept.revision, kept.policies, kept.since, kept.version) == (A, 1, (START,), "0.1.0")
    assert find(root, "aaaa") == kept
    kit = read(root, kept)
    assert (kit.texts, kit.schema) == (texts, SCHEMA)
    folder = kit.folder(Path("mesh"))
    assert (folder.digest, folder.below("policies")) == (
        digest(texts),
        {"policies/a.cedar": texts["policies/a.cedar"]},
    )


def test_all_of_it_is_private(root: Path, clock: Clock) -> None:
    opened(root, clock).keep(A, 1, {"workloads.yaml": "secret"}, SCHEMA)

    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in root.iterdir()] == [0o600, 0o600]


def test_a_text_that_stays_is_kept_once(root: Path, clock: Clock) -> None:
    store = opened(root, clock)
    large = os.urandom(50_000).hex()
    for number in range(10):
        store.keep(f"{number:064x}", 2, {"policies/large.cedar": large, "policies/small.cedar": f"// {number}"}, SCHEMA)

    size = sum(path.stat().st_size for path in root.iterdir())
    assert size < 2 * 50_000
    for kept in history(root).kept:
        assert read(root, kept).texts["policies/large.cedar"] == large


def test_many_small_changes_are_brought_together(root: Path, clock: Clock) -> None:
    store = opened(root, clock)
    texts = {}
    for number in range(revision_store.MAX_PACKS + 10):
        texts[f"policies/{number}.cedar"] = f"// {number}"
        store.keep(f"{number:064x}", number, texts, SCHEMA)

    last = history(root).kept[-1]
    assert len(last.packs) <= 11
    assert read(root, last).texts == texts


def test_the_same_folder_is_no_new_one_and_one_that_comes_back_says_when(root: Path, clock: Clock) -> None:
    store = opened(root, clock)
    first = store.keep(A, 1, {"a": "1"}, SCHEMA)
    clock.pass_(minutes=1)
    assert store.keep(A, 1, {"a": "1"}, SCHEMA) == first
    store.keep(B, 1, {"a": "2"}, SCHEMA)
    clock.pass_(minutes=1)
    again = store.keep(A, 1, {"a": "1"}, SCHEMA)

    assert again.since == (START, START + timedelta(minutes=2))
    assert [one.revision for one in history(root).kept] == [B, A]
    assert opened(root, clock).keep(A, 1, {"a": "1"}, SCHEMA) == again  # after a restart


@pytest.mark.parametrize("again", [RevisionStore.expire, lambda store: store.keep(B, 1, {"a": "3"}, SCHEMA)])
@pytest.mark.parametrize("text", ["1", "2"])  # what was in force before, and what never was
def test_what_a_disk_does_not_take_back_is_taken_back_later(
    root: Path, clock: Clock, again: Callable[[RevisionStore], object], text: str
) -> None:
    """Else the next start would take for what was in force last what never was."""
    store = opened(root, clock)
    for one in ("1", "0"):
        store.keep(A, 1, {"a": one}, SCHEMA)
        clock.pass_(minutes=1)
    before = history(root).kept
    file = root / store.keep(A, 1, {"a": text}, SCHEMA).name
    taken = file.read_bytes()
    file.unlink()
    file.mkdir()  # as what can be neither replaced nor removed
    with pytest.raises(StateError, match="cannot be kept"):
        store.take_back()
    file.rmdir()
    file.write_bytes(taken)

    again(store)
    assert tuple(one for one in history(root).kept if one.revision == A) == before


def test_of_one_revision_with_several_texts_those_of_the_time_are_found(root: Path, clock: Clock) -> None:
    store = opened(root, clock)
    for text in ("// one", "// two"):
        store.keep(A, 1, {"a": text}, SCHEMA)
        clock.pass_(minutes=10)

    def text_at(minutes: float) -> str:
        return read(root, find(root, A[:8], at=START + timedelta(minutes=minutes))).texts["a"]

    assert [text_at(at) for at in (-5, 0, 9, 10, 60)] == ["// one", "// one", "// one", "// two", "// two"]
    assert read(root, find(root, A)).texts["a"] == "// two"


@pytest.mark.parametrize(
    ("prefix", "error", "message"),
    [
        ("abc", UsageError, "`abc` is no revision; write 4 to 64 of its digits, 0 to 9 and a to f"),
        ("../../etc", UsageError, "`../../etc` is no revision; write 4 to 64 of its digits, 0 to 9 and a to f"),
        ("a" * 65, UsageError, f"`{'a' * 65}` is no revision; write 4 to 64 of its digits, 0 to 9 and a to f"),
        ("AAAA", UsageError, "`AAAA` is no revision; write 4 to 64 of its digits, 0 to 9 and a to f"),
        ("dddd", NotFound, "no revision `dddd` is kept; `policyd policy revisions` lists them"),
        ("aaaa", NotFound, f"`aaaa` is short for 2 revisions: `{A[:12]}`, `aaaaffffffff`; write more digits"),
    ],
)
def test_what_names_no_revision_or_several_is_refused(
    root: Path, clock: Clock, prefix: str, error: type[PolicydError], message: str
) -> None:
    store = opened(root, clock)
    for revision in (A, B, "aaaa" + "f" * 60):
        store.keep(revision, 1, {"a": revision}, SCHEMA)

    with pytest.raises(error) as refused:
        find(root, prefix)
    assert str(refused.value) == message


def test_where_nothing_was_served_nothing_is_kept(root: Path) -> None:
    assert history(root).kept == ()
    with pytest.raises(NotFound) as refused:
        find(root, "aaaa")
    assert str(refused.value) == "no revision `aaaa` is kept; one is kept when the folder is served"


def damage_entry(root: Path, kept: Kept) -> Path:
    path = root / kept.name
    path.write_bytes(path.read_bytes()[:-20])
    return path


def swap_entry(root: Path, kept: Kept) -> Path:
    path = root / kept.name
    path.write_bytes(path.read_bytes().replace(b'"revision":"a', b'"revision":"b'))
    return path


def newer_entry(root: Path, kept: Kept) -> Path:
    path = root / kept.name
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":2'))
    return path


def flip_pack(root: Path, kept: Kept) -> Path:
    path = root / f"{kept.packs[0]}.pack"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    return path


def lose_pack(root: Path, kept: Kept) -> Path:
    path = root / f"{kept.packs[0]}.pack"
    path.unlink()
    return path


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (damage_entry, f"`{{}}` is damaged: Input data was truncated; {REMEDY}"),
        (swap_entry, f"`{{}}` is damaged: it is not what its name says; {REMEDY}"),
        (newer_entry, "`{}` has format 2, this policyd knows 1; use the newer policyd that wrote it"),
        (flip_pack, f"`{{}}` is damaged: it has not the hash that it is named by; {REMEDY}"),
        (lose_pack, f"`{{}}` is lost; {REMEDY}"),
    ],
)
def test_what_is_damaged_is_named_never_used_and_kept_anew(
    root: Path, clock: Clock, harm: Callable[[Path, Kept], Path], message: str
) -> None:
    kept = opened(root, clock).keep(A, 1, {"a": "1"}, SCHEMA)
    path = harm(root, kept)

    with pytest.raises(StateError) as refused:
        read(root, find(root, A))
    assert str(refused.value) == message.format(path)

    opened(root, clock).keep(A, 1, {"a": "1"}, SCHEMA)
    assert read(root, find(root, A)).texts == {"a": "1"}


def test_what_no_record_needs_any_more_goes_and_what_is_in_force_stays(root: Path, clock: Clock) -> None:
    store = opened(root, clock)
    store.keep(A, 1, {"a": "1", "same": "x"}, SCHEMA)
    clock.pass_(minutes=30)
    store.keep(B, 1, {"a": "2", "same": "x"}, SCHEMA)
    clock.pass_(minutes=59)
    store.expire()
    assert len(history(root).kept) == 2  # records of A are less than an hour old
    clock.pass_(minutes=2)
    store.expire()
    assert [one.revision for one in history(root).kept] == [B]
    clock.pass_(days=30)
    store.expire()
    assert read(root, find(root, B)).texts == {"a": "2", "same": "x"}


def test_there_are_never_more_than_are_allowed(root: Path, clock: Clock) -> None:
    store = RevisionStore(root, clock, retain=3600, version="0.1.0", most=5)
    for number in range(12):
        store.keep(f"{number:064x}", 1, {"a": str(number)}, SCHEMA)

    assert [one.revision[-1] for one in history(root).kept] == ["7", "8", "9", "a", "b"]
    used = {f"{pack}.pack" for one in history(root).kept for pack in one.packs}
    assert {path.name for path in root.glob("*.pack")} == used


def test_where_it_cannot_be_written_nothing_comes_into_force(root: Path, clock: Clock) -> None:
    store = opened(root, clock)
    root.rename(root.with_name("taken away"))
    with pytest.raises(StateError) as refused:
        store.keep(A, 1, {"a": "1"}, SCHEMA)

    message = f"a revision cannot be kept in `{root}`: no such file or directory; check the disk and the owner"
    assert str(refused.value) == message

    root.with_name("taken away").rename(root)
    store.keep(A, 1, {"a": "1"}, SCHEMA)
    assert read(root, find(root, A)).texts == {"a": "1"}


def test_what_a_crash_left_behind_is_cleaned_up(root: Path, clock: Clock) -> None:
    opened(root, clock).keep(A, 1, {"a": "1"}, SCHEMA)
    (root / ".x.json.4711.tmp").write_text("half")
    opened(root, clock)
    assert files(root) == {".json", ".pack"}


def test_what_differs_is_told_by_file() -> None:
    before, after = {"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}
    assert list(changed(before, after)) == [("b", "changed"), ("c", "removed"), ("d", "added")]


@settings(max_examples=15, deadline=None)
@given(
    folders=st.lists(
        st.dictionaries(st.sampled_from(["p/a", "p/b", "p/c", "g"]), st.text(max_size=5)), min_size=1, max_size=12
    )
)
def test_whatever_came_into_force_in_whatever_order_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, folders: list[dict[str, str]]
) -> None:
    """Revisions stand for texts; the store is opened anew in between, as after a restart."""
    root, clock = tmp_path_factory.mktemp("kept") / "revisions", Clock()
    store = opened(root, clock)
    for at, texts in enumerate(folders):
        store.keep(digest(texts), 1, texts, SCHEMA)
        clock.pass_(seconds=1)
        if at % 3 == 2:
            store = opened(root, clock)

    assert history(root).damaged == ()
    for texts in folders:
        assert read(root, find(root, digest(texts))).texts == texts
    assert history(root).kept[-1].revision == digest(folders[-1])
