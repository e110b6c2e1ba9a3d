"""A file that a command writes for programs elsewhere, with nothing secret in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import TextIO

STDOUT: Final = Path("-")


def put(file: Path, data: bytes, *, as_json: bool) -> TextIO:
    """Write text to a file, whole or not at all, or to standard output for `-`; returns where to say so.

    Raises StateError where it cannot be written, UsageError where JSON is to be printed as well.
    """
    import sys

    from policyd.errors import StateError, UsageError
    from policyd.sources.state import write_private

    if file == STDOUT:
        if as_json:
            raise UsageError("`-` and `--json` both print", remedy="name a file, or leave out `--json`")
        sys.stdout.write(data.decode())
        return sys.stderr
    try:
        write_private(file, data)
        file.chmod(0o644)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise StateError(f"`{file}` cannot be written: {why}", remedy="name another file") from None
    return sys.stdout
