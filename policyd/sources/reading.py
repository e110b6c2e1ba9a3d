"""Reading one file or one folder of declared files: bounded, and every trouble is a Problem with the file's name.

Law: nothing is followed out of its folder, nothing is waited for, and nothing larger than MAX_BYTES is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from policyd.errors import Problem
from policyd.yaml import MAX_BYTES, position, too_large

NO_TEXT: Final = "text"  # the code of a Problem that hides nothing of other files


def names_in(folder: Path, shown: str, endings: tuple[str, ...], problems: list[Problem]) -> Iterator[str]:
    """Yield the names of the files to read in a folder that people know as `shown`, sorted."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        problems.append(Problem("file", f"cannot be read: {reason(error)}", shown))
        return
    for name in names:
        if name.startswith(".") or name.endswith("~"):
            continue
        if name.endswith(endings):
            yield name
        elif (folder / name).is_dir():
            remedy = f"move its files into `{shown}`"
            problems.append(Problem("file", "a folder inside is not read", f"{shown}/{name}", remedy=remedy))


def read_text(root: Path, place: Path, shown: str, problems: list[Problem], *, anyway: bool = False) -> str | None:
    """Return the text of a file below `root`, or None and a Problem of the file as it is shown.

    With `anyway` what is no UTF-8 is a Problem and yet a text, by which other files can be checked.
    """
    if not real(place).is_relative_to(real(root)):
        problems.append(Problem("file", "is a link that leads out of the folder", shown, remedy="copy the file"))
        return None
    try:
        data = _bytes(place)
    except OSError as error:
        problems.append(Problem("file", f"cannot be read: {reason(error)}", shown, remedy="check owner and mode"))
        return None
    if data is None:
        problems.append(Problem("file", "is no regular file", shown, remedy="replace it by one"))
        return None
    if len(data) > MAX_BYTES:
        problems.append(too_large(shown, place.stat().st_size, MAX_BYTES))
        return None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line, column = position(data[: error.start].decode(), error.start)
        message = f"the byte 0x{data[error.start]:02x} is no UTF-8"
        problems.append(Problem(NO_TEXT, message, shown, line, column, "save the file as UTF-8"))
        return data.decode(errors="replace") if anyway else None


def real(path: Path) -> Path:
    """Where a path leads, links followed; one that leads in a circle leads to itself, and is found to be no file."""
    return Path(os.path.realpath(path))  # `Path.resolve` ends with a RuntimeError there


class Stamp(NamedTuple):
    """What shows that a file changed, without reading it: its size in bytes, its times in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


def stamp(path: Path) -> Stamp | int | None:
    """The stamp of a file, or the number of the error that the system answers with."""
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def reason(error: OSError) -> str:
    """Why the system refused."""
    return (error.strerror or str(error)).lower()


def _bytes(path: Path) -> bytes | None:
    """Read at most one byte more than allowed; None for what is no regular file (a pipe would wait for ever)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_BYTES + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
