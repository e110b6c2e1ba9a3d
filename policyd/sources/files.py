"""A folder of declared files, read whole and bounded, and the notice that it changed.

Law: what cannot be read, or lies where it would not be read, is a Problem with its file, never passed over.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from watchfiles import awatch

from policyd.errors import InvalidInput, Problem
from policyd.mesh.credentials import Credentials
from policyd.sources.credentials import credential_folders, credential_paths, read_credentials
from policyd.sources.reading import NO_TEXT, Stamp, names_in, read_text, reason, stamp
from policyd.yaml import MAX_BYTES

FILES: Final = (
    "policyd.yaml",
    "workloads.yaml",
    "groups.yaml",
    "checks.yaml",
    "issuance.cedar",
    "operators.cedar",
)
FOLDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "mesh": (".yaml", ".yml"),
    "policies": (".cedar",),
    "cases": (".yaml", ".yml", ".json"),
    "jwks": (".json",),
}
MAX_FILES: Final = 5_000
MAX_TOTAL_BYTES: Final = 64 * MAX_BYTES
DEBOUNCE_MS: Final = 100
STEP_MS: Final = 25
LOOK_AGAIN_MS: Final = 500  # for what brings no notice: a folder replaced by rename, a network file system
EMPTIED_LOOKS: Final = 40  # of STEP_MS each: how long a file that lost its text is taken for one that is being written
_Stamps = Mapping[Path | tuple[str, str], Stamp | int | None]  # of files, and of problems that have no file


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder declares: `texts` by path in the folder; `digest` is the hash of paths and texts.

    `shadow` are the policies that are tried beside its own, by path as people know it, of the folder `shadow_place`;
    None where no such folder is named. `credentials` are what may be known of certificates and keys, None where they
    are not at hand.
    """

    directory: Path
    texts: Mapping[str, str]
    digest: str
    shadow: Mapping[str, str] | None = None
    shadow_place: str = ""
    credentials: Credentials | None = None

    @property
    def every_text(self) -> Mapping[str, str]:
        """All of the texts, those of the shadow folder too."""
        return {**self.texts, **(self.shadow or {})}

    @property
    def known(self) -> Mapping[str, str]:
        """All by which one declaration differs from another: the texts, and what may be known of credentials."""
        files = (self.credentials or {}).items()
        told = {path: f"{one.public} {one.problem}{one.writing}{one.unfit}\n{one.text}" for path, one in files}
        return {**self.every_text, **told}

    def text(self, name: str) -> str | None:
        """Return the text of one of FILES, None if it is not there."""
        return self.texts.get(name)

    def below(self, folder: str) -> dict[str, str]:
        """Return the texts of one of FOLDERS, by path in `directory`."""
        return {path: text for path, text in self.texts.items() if path.startswith(f"{folder}/")}


class UnreadFolder(InvalidInput):
    """A folder with files that cannot be read; `rest` is what can be checked yet, None where too much is missing."""

    def __init__(self, problems: Sequence[Problem], rest: Folder | None) -> None:
        super().__init__(problems)
        self.rest = rest


def read_folder(directory: Path) -> Folder:
    """Read every declared file of `directory`; raises UnreadFolder with every Problem."""
    problems: list[Problem] = []
    texts: dict[str, str] = {}
    total = 0
    for path in _listing(directory, problems):
        text = read_text(directory, directory / path, path, problems, anyway=True)
        if text is not None:
            texts[path] = text
            total += len(text)
        if total > MAX_TOTAL_BYTES:
            problems.append(Problem("size", f"more than {MAX_TOTAL_BYTES:,} bytes in one folder", path))
            break
    if any(problem.code != NO_TEXT for problem in problems):
        raise UnreadFolder(problems, None)
    folder = Folder(directory, texts, "", credentials=read_credentials(directory))
    folder = replace(folder, digest=digest(folder.known))
    if problems:
        raise UnreadFolder(problems, folder)
    return folder


def digest(texts: Mapping[str, str]) -> str:
    """Return the SHA-256 of paths and texts, in hexadecimal; equal for equal declarations only."""
    total = hashlib.sha256()
    for path, text in sorted(texts.items()):
        for part in (path.encode(), text.encode()):
            total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


async def watch(
    directory: Path, stop: asyncio.Event, also: Callable[[], Path | None] = lambda: None
) -> AsyncIterator[None]:
    """Yield once when watching has begun, then after each change of the declared files, until `stop` is set.

    Read the folder after each; changes while you read are not lost. Folders may come, go and be replaced. `also` is
    asked again and again for a folder of policies beside it. Who writes a file often empties it first: of one that
    is empty now and was not, you are told when it has a text again, and after a second or two if that is what was
    meant; not where `stop` is set meanwhile.
    """
    known: _Stamps | None = None
    while not stop.is_set():
        if (now := await _settled(directory, also, stop, known or {})) != known and now is not None:
            known = now
            yield
        watched = _roots(directory, also())
        if not watched:
            await _pause(stop, LOOK_AGAIN_MS / 1000)
            continue
        async with aclosing(_notices(watched, stop)) as notices:
            async for _ in notices:
                if (now := await _settled(directory, also, stop, known or {})) != known and now is not None:
                    known = now
                    yield
                if _roots(directory, also()) != watched:
                    break


async def _settled(
    directory: Path, also: Callable[[], Path | None], stop: asyncio.Event, known: _Stamps
) -> _Stamps | None:
    """Return the stamps of the declared files once none has just been emptied, or that has lasted; None once `stop` is
    set before that.
    """
    now = await asyncio.to_thread(_stamps, directory, also())
    for _ in range(EMPTIED_LOOKS):
        if not _is_emptied(known, now):
            break
        if stop.is_set():
            return None
        await _pause(stop, STEP_MS / 1000)
        now = await asyncio.to_thread(_stamps, directory, also())
    return now


async def _notices(roots: Iterable[Path], stop: asyncio.Event) -> AsyncGenerator[None, None]:
    """Yield whenever it is worth looking, at least every LOOK_AGAIN_MS; not recursive, so that the state folder's
    many writes wake nobody.
    """
    changes = awatch(
        *roots,
        watch_filter=None,
        debounce=DEBOUNCE_MS,
        step=STEP_MS,
        stop_event=stop,
        rust_timeout=LOOK_AGAIN_MS,
        yield_on_timeout=True,
        recursive=False,
    )
    async with aclosing(changes):
        try:
            async for _ in changes:
                yield
        except FileNotFoundError:  # gone between our look and the watcher's
            await _pause(stop, STEP_MS / 1000)


def _listing(directory: Path, problems: list[Problem]) -> Iterator[str]:
    """Yield the paths to read, sorted; what lies where nothing is read becomes a Problem."""
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError as error:
        problems.append(Problem("file", f"the folder cannot be read: {reason(error)}", str(directory)))
        return
    for count, path in enumerate(_paths(directory, names, problems)):
        if count == MAX_FILES:
            problems.append(Problem("size", f"more than {MAX_FILES:,} files", path, remedy="join some"))
            return
        yield path


def _paths(directory: Path, names: list[str], problems: list[Problem]) -> Iterator[str]:
    for name in names:
        if name in FILES:
            yield name
        elif name in FOLDERS:
            yield from (f"{name}/{one}" for one in names_in(directory / name, name, FOLDERS[name], problems))
        elif near := _meant(name):
            message = f"`{name}` is no file of this folder's format"
            problems.append(Problem("file", message, name, remedy=f"did you mean `{near}`?"))


def _meant(name: str) -> str | None:
    """Find the name that a misspelt one was meant for; other files are the application's own."""
    if name.startswith(".") or name.endswith("~"):
        return None
    near = difflib.get_close_matches(name, [*FILES, *FOLDERS], 1, cutoff=0.85)
    return near[0] if near else None


def _roots(directory: Path, shadow: Path | None) -> dict[Path, tuple[int, int]]:
    """Return the folders to watch, with what tells that one was replaced by another of its name."""
    found: dict[Path, tuple[int, int]] = {}
    folders = (*(directory / name for name in FOLDERS), *credential_folders(directory))
    for path in (directory, *folders, *([shadow] if shadow else [])):
        try:
            status = path.stat()
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode):
            found[path] = status.st_dev, status.st_ino
    return found


def _stamps(directory: Path, shadow: Path | None) -> _Stamps:
    """Return what shows that a declared file changed, without reading any."""
    problems: list[Problem] = []
    paths = [directory / path for path in (*_listing(directory, problems), *credential_paths(directory))]
    if shadow is not None:
        paths += (shadow / name for name in names_in(shadow, str(shadow), FOLDERS["policies"], problems))
    return {**{(problem.file, problem.message): None for problem in problems}, **{path: stamp(path) for path in paths}}


def _is_emptied(before: _Stamps, now: _Stamps) -> bool:
    """Whether a file that had a text is empty now."""
    return any(
        isinstance(one, Stamp) and not one.size and isinstance(had := before.get(path), Stamp) and had.size
        for path, one in now.items()
    )


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
