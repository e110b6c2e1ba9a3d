"""`policyd log export`: the journal as files for other tools, from where the last export of a folder stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import typer

from policyd.cli.moments import Since, Until
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd.audit.read import Line
    from policyd.audit.scan import Span

CHUNK_RECORDS: Final = 100_000  # of a file
STATE: Final = "export.json"
STATE_FORMAT: Final = 1

Format = Literal["jsonl", "parquet"]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where an export stands: its form, its time range, the number of the next file, and how far writers are read."""

    format: int = STATE_FORMAT
    form: Format
    since: str = ""
    until: str = ""
    next: int = 1
    records: int = 0
    writers: dict[str, tuple[int, int]] = {}


def export(
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]", help="Where the files go; without it lines are printed.", show_default=False
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Lines as they are, or columns.")] = "jsonl",
    directory: Dir = None,
    since: Since = "",
    until: Until = "",
    as_json: Json = False,
) -> None:
    """Write the journal's records into files: JSON lines as they are in it, or Parquet with the columns of `log sql`.

    The folder remembers how far it is, so that the same command goes on from there: after Ctrl-C, or tomorrow with what
    has come since. A file is whole or not there, and no record is in two.
    """
    from policyd.cli import output
    from policyd.cli.journal import journal_of
    from policyd.cli.moments import here
    from policyd.errors import UsageError

    journal, span = journal_of(directory), here(since, until)
    if target is None:
        if form != "jsonl" or as_json:
            raise UsageError("only JSON lines are printed", remedy="name a folder for the files")
        _print(journal, span)
        return
    before = _state(target, form, span)
    after = _write_all(journal, target, before)
    made = {"files": after.next - before.next, "records": after.records - before.records, "folder": str(target)}
    if as_json:
        output.print_json(made)
    else:
        files = "1 file" if made["files"] == 1 else f"{made['files']} files"
        output.show(f"{made['records']:,} records in {files}; `{target}` has {after.records:,}")


def _print(journal: Path, span: Span) -> None:
    from policyd.audit.scan import scan
    from policyd.cli.journal import say_broken

    for line in scan(journal, span).lines(say_broken):
        sys.stdout.buffer.write(line.raw)
    sys.stdout.buffer.flush()


def _state(target: Path, form: Format, span: Span) -> State:
    """Where the folder's export stands, a new one if it has none; raises UsageError."""
    from policyd.errors import UsageError

    wanted = State(form=form, since=_text(span.since), until=_text(span.until))
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(
            f"`{target}` is no folder and cannot be made one: {reason}", remedy="name another one"
        ) from None
    try:
        found = msgspec.json.decode((target / STATE).read_bytes(), type=State)
    except FileNotFoundError:
        if any(target.iterdir()):
            raise UsageError(f"`{target}` has files that are no export", remedy="name an empty folder") from None
        return wanted
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"`{target / STATE}` cannot be read: {error}", remedy="name another folder") from None
    same = found.form == form and (not wanted.since or wanted.since == found.since) and found.format == STATE_FORMAT
    if not same or (wanted.until and wanted.until != found.until):
        raise UsageError(
            f"`{target}` has an export of another form or time range",
            remedy="leave `--since` and `--until` away to go on with it, or name another folder",
        )
    return found


def _write_all(journal: Path, target: Path, state: State) -> State:
    """Write file after file; after each, how far it is."""
    from policyd.audit.read import Follower, Position
    from policyd.audit.scan import scan
    from policyd.cli.journal import say_broken
    from policyd.cli.waiting import waiting

    span = _span(state)
    chosen = scan(journal, span)
    positions = {writer: Position(*one) for writer, one in state.writers.items()}
    for segments in chosen.writers:
        if segments:
            positions.setdefault(segments[0].writer, Position(segments[0].first_seq, 0))
    follower = Follower(journal, positions, say_broken)
    lines: list[Line] = []
    size, done = chosen.size, 0
    with waiting("exporting") as tell:
        while found := follower.poll():
            done += sum(len(line.raw) for line in found)
            tell(done, max(size, done))
            lines += [line for line in found if span.holds(line.record.time)]
            if len(lines) >= CHUNK_RECORDS:
                state = _write_chunk(target, lines, state, follower.positions)
                lines = []
    return _write_chunk(target, lines, state, follower.positions)


def _write_chunk(target: Path, lines: list[Line], state: State, positions: Any) -> State:
    """One more file, then the state; the state alone where there is no record."""
    from policyd.errors import StateError
    from policyd.sources.state import write_private

    writers = {writer: (one.first_seq, one.offset) for writer, one in positions.items()}
    made = 1 if lines else 0
    after = msgspec.structs.replace(state, next=state.next + made, records=state.records + len(lines), writers=writers)
    try:
        if lines:
            _write_file(target / f"records-{state.next:06d}.{state.form}", lines, state.form)
        write_private(target / STATE, msgspec.json.encode(after))
    except OSError as error:
        message = f"`{target}` cannot be written: {error.strerror}"
        raise StateError(message, remedy="make space; the same command goes on") from error
    return after


def _write_file(path: Path, lines: list[Line], form: Format) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            part.chmod(0o600)
            file.writelines(line.raw for line in lines)
        if form == "parquet":
            from policyd.audit.ask.copy import write_columns

            columns = path.with_name(f".{path.name}.columns")
            write_columns(part, columns)
            columns.chmod(0o600)
            columns.replace(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _span(state: State) -> Span:
    from datetime import datetime

    from policyd.audit.scan import Span

    since, until = (datetime.fromisoformat(text) if text else None for text in (state.since, state.until))
    return Span(since, until)


def _text(moment: Any) -> str:
    return moment.isoformat() if moment else ""
