"""Files that change while somebody watches them: whole at every moment."""

from __future__ import annotations

from pathlib import Path


def put(file: Path, text: str, mode: int = 0o644) -> None:
    """Have a file say something else at once; `write_text` empties it first, and an empty one may be taken as meant."""
    draft = file.with_name(f".{file.name}.draft")  # beside it, under a name that nobody reads
    draft.touch(mode)
    draft.write_text(text)
    draft.replace(file)
