"""The shadow folder: read with the mesh's folder, refused by its name where it is not what it is meant to be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from policyd.errors import InvalidInput
from policyd.sources.files import digest, read_folder, watch
from policyd.sources.shadow import FolderReader

ACTIVE = {"policies/a.cedar": "// a\n"}
NAMED = {**ACTIVE, "policyd.yaml": "shadow: {policies: next}\n"}
ITSELF = "the shadow folder is the one of the active policies; copy it, and change the copy"
REMEDY = "name a folder of `.cedar` files, or none"


def written(directory: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


def refused(reader: FolderReader) -> list[str]:
    with pytest.raises(InvalidInput) as error:
        reader()
    return [str(problem) for problem in error.value.problems]


def test_without_one_the_folder_is_as_it_was(tmp_path: Path) -> None:
    folder = written(tmp_path / "mesh", ACTIVE)

    assert FolderReader(folder)() == read_folder(folder)


def test_the_one_of_the_settings_is_read_from_the_meshs_folder(tmp_path: Path) -> None:
    folder = written(tmp_path / "mesh", {**NAMED, "next/b.cedar": "// b\n", "next/README.md": "no policy"})
    found = FolderReader(folder)()

    assert (found.texts, found.shadow, found.shadow_place) == (NAMED, {"next/b.cedar": "// b\n"}, "next")
    assert found.digest == digest({**NAMED, "next/b.cedar": "// b\n"}) != read_folder(folder).digest


def test_the_option_wins_over_the_settings_and_lies_anywhere(tmp_path: Path) -> None:
    folder = written(tmp_path / "mesh", NAMED)
    other = written(tmp_path / "other", {"b.cedar": "// b\n"})
    reader = FolderReader(folder, other)

    assert (reader().shadow, reader.place()) == ({f"{other}/b.cedar": "// b\n"}, other)


def test_settings_that_are_wrong_are_left_to_who_checks_them(tmp_path: Path) -> None:
    folder = written(tmp_path / "mesh", {"policyd.yaml": "shadow: {polices: next}\n"})

    assert FolderReader(folder)().shadow is None


@pytest.mark.parametrize(
    ("name", "files", "problem"),
    [
        ("next", {}, f"next: the shadow folder is not there; {REMEDY}"),
        ("../next", {}, f"../next: the shadow folder is not there; {REMEDY}"),
        ("next", {"next": ""}, f"next: the shadow folder is no folder; {REMEDY}"),
        ("next", {"next/README.md": ""}, f"next: the shadow folder has no policies; {REMEDY}"),
        ("policies", {}, f"policies: {ITSELF}"),
        ("mesh/../policies", {"mesh/a.yaml": ""}, f"mesh/../policies: {ITSELF}"),
        (".", {}, ".: the shadow folder is a mesh's folder; did you mean `./policies`?"),
        ("next", {"next/policies/a.cedar": ""},
         "next: the shadow folder is a mesh's folder; did you mean `next/policies`?"),
        ("next", {"next/a.cedar": "", "next/more/b.cedar": ""},
         "next/more: a folder inside is not read; move its files into `next`"),
    ],
)  # fmt: skip
def test_what_is_no_shadow_folder_is_refused_by_its_name(
    tmp_path: Path, name: str, files: dict[str, str], problem: str
) -> None:
    texts = {**ACTIVE, **files, "policyd.yaml": f"shadow: {{policies: {name}}}\n"}

    assert refused(FolderReader(written(tmp_path / "mesh", texts))) == [problem]


def test_a_file_of_it_that_cannot_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    folder = written(tmp_path / "mesh", {**NAMED, "next/a.cedar": ""})
    (folder / "next" / "b.cedar").write_bytes(b"// b\n\xff\n")
    (folder / "next" / "c.cedar").symlink_to("/etc/hostname")
    (folder / "next" / "d.cedar").symlink_to("d.cedar")

    assert refused(FolderReader(folder)) == [
        "next/b.cedar:2: the byte 0xff is no UTF-8; save the file as UTF-8",
        "next/c.cedar: is a link that leads out of the folder; copy the file",
        "next/d.cedar: cannot be read: too many levels of symbolic links; check owner and mode",
    ]


async def test_its_changes_are_noticed_also_when_another_one_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "mesh", {**NAMED, "next/a.cedar": "// a\n", "later/a.cedar": "// a\n"})
    reader, stop, seen = FolderReader(folder), asyncio.Event(), list[object]()

    async def run() -> None:
        async for _ in watch(folder, stop, reader.place):
            try:
                seen.append(reader().shadow)
            except InvalidInput as error:
                seen.append(str(error.problems[0].message))

    async def until(expected: object) -> None:
        async with asyncio.timeout(10):
            while not seen or seen[-1] != expected:
                await asyncio.sleep(0.01)

    task = asyncio.create_task(run())
    try:
        await until({"next/a.cedar": "// a\n"})
        written(folder, {"next/b.cedar": "// b\n"})
        await until({"next/a.cedar": "// a\n", "next/b.cedar": "// b\n"})
        written(folder, {"policyd.yaml": "shadow: {policies: later}\n"})
        await until({"later/a.cedar": "// a\n"})
        written(folder, {"later/a.cedar": "// b\n"})
        await until({"later/a.cedar": "// b\n"})
        written(folder, {"policyd.yaml": "shadow: {policies: new}\n"})
        await until("the shadow folder is not there")
        written(folder, {"new/a.cedar": "// new\n"})
        await until({"new/a.cedar": "// new\n"})
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)
