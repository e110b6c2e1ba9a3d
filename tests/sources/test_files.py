"""A folder is read whole or refused, and its changes are noticed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from policyd.errors import InvalidInput
from policyd.sources.files import STEP_MS, digest, read_folder, watch

GOOD = {
    "policyd.yaml": "trustDomain: cluster.local\n",
    "workloads.yaml": "workloads: {}\n",
    "groups.yaml": "groups: {}\n",
    "checks.yaml": "[]\n",
    "issuance.cedar": "// none\n",
    "operators.cedar": "// none\n",
    "mesh/a.yaml": "---\n",
    "mesh/b.yml": "---\n",
    "policies/web.cedar": "// é\n",
    "cases/web.yaml": "[]\n",
    "cases/web.json": "[]\n",
}
PASSED_OVER = ["README.md", "mesh/README.md", "mesh/.a.yaml.swp", "mesh/a.yaml~", ".policyd/journal", "app/main.py"]
UNKNOWN = "is no file of this folder's format"
AT_MOST = "at most 1,048,576 are allowed"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good folder."""
    directory = tmp_path / "folder"
    for path, text in GOOD.items():
        write(directory / path, text)
    return directory


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def refused(directory: Path) -> list[str]:
    with pytest.raises(InvalidInput) as error:
        read_folder(directory)
    return [str(problem) for problem in error.value.problems]


def test_every_declared_file_is_read_and_no_other(folder: Path) -> None:
    for path in PASSED_OVER:
        write(folder / path, "\xff\0")
    found = read_folder(folder)
    assert (found.directory, found.texts, found.digest) == (folder, GOOD, digest(GOOD))
    assert found.below("mesh") == {"mesh/a.yaml": "---\n", "mesh/b.yml": "---\n"}
    assert found.text("checks.yaml") == "[]\n"
    assert found.text("nothing.yaml") is None


def test_an_empty_folder_declares_nothing(tmp_path: Path) -> None:
    assert read_folder(tmp_path).texts == {}


def test_the_sample_folder_is_read(root: Path) -> None:
    assert "mesh/gateway.yaml" in read_folder(root / "examples" / "bookinfo").texts


def test_the_digest_tells_paths_and_texts_apart() -> None:
    texts = [{}, {"a": "b"}, {"ab": ""}, {"": "ab"}, {"a": "", "b": ""}, {"b": "a"}]
    assert len({digest(text) for text in texts}) == len(texts)
    assert digest({"a": "1", "b": "2"}) == digest({"b": "2", "a": "1"})


@pytest.mark.parametrize(
    ("path", "text", "problem"),
    [
        ("workload.yaml", "", f"workload.yaml: `workload.yaml` {UNKNOWN}; did you mean `workloads.yaml`?"),
        ("polices/a.cedar", "", f"polices: `polices` {UNKNOWN}; did you mean `policies`?"),
        ("mesh/more/a.yaml", "", "mesh/more: a folder inside is not read; move its files into `mesh`"),
        ("groups.yaml", b"a: 1\nb: \xe4\n", "groups.yaml:2: the byte 0xe4 is no UTF-8; save the file as UTF-8"),
        ("mesh/a.yaml", b"x" * 10_000_000, f"mesh/a.yaml: 10,000,000 bytes, {AT_MOST}; split the file"),
    ],
)
def test_what_cannot_be_understood_is_refused(folder: Path, path: str, text: str | bytes, problem: str) -> None:
    write(folder / path, text)
    assert refused(folder) == [problem]


def test_a_link_out_of_the_folder_is_refused_and_one_within_followed(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "outside.yaml", "secret")
    write(folder / "..data" / "c.yaml", "---\n")
    (folder / "mesh" / "c.yaml").symlink_to(folder / "..data" / "c.yaml")
    assert read_folder(folder).texts["mesh/c.yaml"] == "---\n"
    (folder / "mesh" / "d.yaml").symlink_to(tmp_path / "outside.yaml")
    assert refused(folder) == ["mesh/d.yaml: is a link that leads out of the folder; copy the file"]


def test_links_in_a_circle_are_refused(folder: Path) -> None:
    (folder / "mesh").mkdir(exist_ok=True)
    (folder / "mesh" / "e.yaml").symlink_to(folder / "mesh" / "f.yaml")
    (folder / "mesh" / "f.yaml").symlink_to("e.yaml")
    why = "cannot be read: too many levels of symbolic links; check owner and mode"
    assert refused(folder) == [f"mesh/e.yaml: {why}", f"mesh/f.yaml: {why}"]


def test_a_pipe_is_refused_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "mesh" / "pipe.yaml")
    assert refused(folder) == ["mesh/pipe.yaml: is no regular file; replace it by one"]


def test_a_link_to_nowhere_is_refused(folder: Path) -> None:
    (folder / "mesh" / "c.yaml").symlink_to(folder / "gone.yaml")
    assert refused(folder) == ["mesh/c.yaml: cannot be read: no such file or directory; check owner and mode"]


def test_a_file_where_a_folder_belongs_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "mesh", "")
    assert refused(tmp_path) == ["mesh: cannot be read: not a directory"]


def test_no_folder_is_a_problem(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert refused(nowhere) == [f"{nowhere}: the folder cannot be read: no such file or directory"]


def test_all_problems_are_found_at_once(folder: Path) -> None:
    write(folder / "groups.yaml", b"\xff")
    write(folder / "mesh" / "a.yaml", b"\xff")
    assert len(refused(folder)) == 2


@asynccontextmanager
async def watching(directory: Path, noticed: Callable[[], None] = lambda: None) -> AsyncIterator[Callable[[], int]]:
    """Watch in the background, calling `noticed` at each notice; what is yielded counts the notices so far."""
    stop = asyncio.Event()
    count = 0

    async def run() -> None:
        nonlocal count
        async for _ in watch(directory, stop):
            count += 1
            noticed()

    task = asyncio.create_task(run())
    try:
        await until(lambda: count == 1)
        yield lambda: count
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


def replaced_file(folder: Path) -> None:
    write(folder / "mesh" / ".a.yaml.tmp", "b: 2\n")
    (folder / "mesh" / ".a.yaml.tmp").replace(folder / "mesh" / "a.yaml")


def replaced_folder(folder: Path) -> None:
    for path, text in {**GOOD, "mesh/a.yaml": "c: 3\n"}.items():
        write(folder.with_name("new") / path, text)
    folder.rename(folder.with_name("old"))
    folder.with_name("new").rename(folder)


def replaced_subfolder(folder: Path) -> None:
    write(folder / "mesh2" / "z.yaml", "c: 3\n")
    (folder / "mesh").rename(folder / "mesh.old")
    (folder / "mesh2").rename(folder / "mesh")


CHANGES: dict[str, Callable[[Path], None]] = {
    "a file is written": lambda folder: write(folder / "mesh" / "a.yaml", "b: 2\n"),
    "a file is replaced": replaced_file,
    "a file is new": lambda folder: write(folder / "policies" / "new.cedar", ""),
    "a file is gone": lambda folder: (folder / "groups.yaml").unlink(),
    "a misspelt file is new": lambda folder: write(folder / "workload.yaml", ""),
    "a folder in it is replaced": replaced_subfolder,
    "the folder is replaced": replaced_folder,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_a_change_is_noticed(folder: Path, change: Callable[[Path], None]) -> None:
    async with watching(folder) as notices:
        change(folder)
        await until(lambda: notices() >= 2)


async def test_after_a_replacement_changes_are_still_noticed(folder: Path) -> None:
    async with watching(folder) as notices:
        replaced_folder(folder)
        await until(lambda: notices() >= 2)
        before = notices()
        write(folder / "mesh" / "a.yaml", "d: 4\n")
        await until(lambda: notices() > before)


async def test_state_and_editors_files_wake_nobody(folder: Path) -> None:
    async with watching(folder) as notices:
        for path in PASSED_OVER:
            write(folder / path, "x")
        # a notice for them would come before or with this one
        write(folder / "mesh" / "a.yaml", "b: 2\n")
        await until(lambda: notices() >= 2)
        assert notices() == 2


async def test_a_file_that_is_being_written_is_not_told_of_before_it_has_its_text(folder: Path) -> None:
    """As who is interrupted between emptying a file and writing it leaves it."""
    file = folder / "mesh" / "a.yaml"
    seen: list[str] = []
    async with watching(folder, lambda: seen.append(file.read_text())):
        file.write_text("")
        await asyncio.sleep(4 * STEP_MS / 1000)  # long enough for a notice of that, were there one
        file.write_text("b: 2\n")
        await until(lambda: seen[1:] == ["b: 2\n"])


async def test_a_file_that_stays_empty_is_told_of(folder: Path) -> None:
    file = folder / "mesh" / "a.yaml"
    seen: list[str] = []
    async with watching(folder, lambda: seen.append(file.read_text())):
        file.write_text("")
        await until(lambda: seen[1:] == [""])


async def test_what_was_emptied_as_watching_ends_is_told_of_no_more(folder: Path) -> None:
    """Nobody knows whether it was meant, and who is about to end need not put it in force."""
    file, stop = folder / "mesh" / "a.yaml", asyncio.Event()
    seen: list[str] = []
    async for _ in watch(folder, stop):
        seen.append(file.read_text())
        file.write_text("")
        asyncio.get_running_loop().call_later(30 * STEP_MS / 1000, stop.set)  # while a text is waited for
    assert seen == ["---\n"]


async def test_watching_begins_with_a_notice_where_nothing_is_declared_too(tmp_path: Path) -> None:
    async with watching(tmp_path) as notices:
        write(tmp_path / "workloads.yaml", "{}\n")
        await until(lambda: notices() == 2)


async def test_a_folder_may_come_later(tmp_path: Path) -> None:
    async with watching(tmp_path / "later") as notices:
        write(tmp_path / "later" / "mesh" / "a.yaml", "---\n")
        await until(lambda: notices() >= 2)


async def test_watching_ends_when_told(folder: Path) -> None:
    async with watching(folder):
        pass
