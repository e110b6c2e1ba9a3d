"""`policyd policy fmt`: policy files in Cedar's own format."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from policyd.cli.exits import Exit
from policyd.cli.options import Json

SETS: Final = ("issuance.cedar", "operators.cedar")  # the policy files of a mesh's folder outside `policies`


def fmt(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH...", help="Files or folders; without any the folder that you are in.", show_default=False
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file is not formatted.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; print what would change.")] = False,
    as_json: Json = False,
) -> None:
    """Format policy files in place, comments kept; of a folder all its .cedar files.

    Every file is formatted, or none is written. Exit code 2 if --check finds a difference, 3 if a file is no policy.
    """
    from policyd.cli import output
    from policyd.instance import existing
    from policyd.policy.fmt import difference
    from policyd.wording import clean

    texts = _formatted(list(_files(paths or [Path(os.path.relpath(existing(None)))])))
    changed = [(path, before, after) for path, before, after in texts if before != after]
    writes = not check and not diff
    for path, before, after in changed:
        if writes:
            _replace(path, after)
        if as_json:
            continue
        if diff:
            output.show(clean(difference(before, after, str(path)), limit=1 << 20).removesuffix("\n"))
        else:
            output.show(clean(f"{path}: {'formatted' if writes else 'is not formatted'}"))
    if as_json:
        values = [{"file": str(path), "formatted": before == after} for path, before, after in texts]
        output.print_json({"written": writes, "files": values})
    raise typer.Exit(Exit.DENIED if check and changed else Exit.OK)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the files of folders, the others as they are; raises UsageError for what is not there."""
    from policyd.errors import UsageError

    for path in paths:
        if path.is_dir():
            inside = path / "policies"
            is_mesh = os.path.lexists(inside)
            yield from _listed(inside if is_mesh else path)
            yield from (path / name for name in SETS if is_mesh and (path / name).is_file())
        elif path.exists():
            yield path
        else:
            raise UsageError(f"`{path}` is no file and no folder", remedy="name one that is there")


def _listed(folder: Path) -> Sequence[Path]:
    """The policy files of a folder; raises InvalidInput where it cannot be read."""
    from policyd.errors import InvalidInput, Problem
    from policyd.sources.reading import reason

    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".cedar" and not path.name.startswith("."))
    except OSError as error:
        problem = Problem("file", f"cannot be read: {reason(error)}", str(folder), remedy="check owner and mode")
        raise InvalidInput([problem]) from None


def _formatted(paths: Sequence[Path]) -> list[tuple[Path, str, str]]:
    """Return each file's text as it is and formatted; raises InvalidInput with every problem of every file."""
    from policyd.errors import InvalidInput, Problem
    from policyd.policy.fmt import formatted
    from policyd.sources.reading import read_text, real

    problems: list[Problem] = []
    texts: list[tuple[Path, str, str]] = []
    for path in paths:
        text = read_text(real(path).parent, path, str(path), problems)  # a link may lead where it likes
        try:
            if text is not None:
                texts.append((path, text, formatted(text, str(path))))
        except InvalidInput as error:
            problems += error.problems
    if problems:
        raise InvalidInput(problems)
    return texts


def _replace(path: Path, text: str) -> None:
    """Write a file so that it is there whole or as it was, with its mode; raises PolicydError."""
    from policyd.errors import StateError

    place = path.resolve()  # a link stays a link
    beside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), place.stat().st_mode & 0o777)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(place)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StateError(f"`{path}` cannot be written: {reason}", remedy="check owner, mode and disk") from None
    finally:
        beside.unlink(missing_ok=True)
