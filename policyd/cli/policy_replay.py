"""`policyd policy replay`: what a candidate would have decided on the requests that were recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from policyd.cli.exits import Exit
from policyd.cli.moments import Since, Until
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd.audit.scan import Span
    from policyd.authz.ruling import Ruling
    from policyd.policy.replay_tally import Same, Seen, Tally
    from policyd.sources.files import Folder

MAX_ROWS: Final = 200


def replay(
    candidate: Annotated[
        Path,
        typer.Option(
            "--candidate",
            metavar="DIR",
            help="The folder as it would be; or policies alone, for the mesh as it is.",
            show_default=False,
        ),
    ],
    directory: Dir = None,
    since: Since = "",
    until: Until = "",
    strict: Annotated[bool, typer.Option("--strict", help="What cannot be decided is a difference too.")] = False,
    as_json: Json = False,
) -> None:
    """Decide recorded requests again under a candidate: what would have been answered differently, how often, to whom.

    Every request of the journal that policies decided, or those of a time range. A request is decided exactly or not at
    all: where its record lacks what the candidate reads, or has it masked, it is counted as undecidable and nothing is
    guessed. Exit code 0 if nothing changes, 2 if something does.
    """
    from policyd.cli import output
    from policyd.cli.journal import journal_of
    from policyd.cli.moments import here
    from policyd.instance import folder as find_folder

    span = here(since, until)
    journal = journal_of(directory)
    where = find_folder(directory)
    folder, ruling = candidate_of(candidate, where)
    tally = tally_of(journal, span, where, folder, ruling)
    if as_json:
        output.print_json(value(tally, ruling.revision))
    else:
        output.show(*lines(tally))
    different = bool(tally.changed) or (strict and bool(tally.undecidable))
    raise typer.Exit(Exit.DENIED if different else Exit.OK)


def candidate_of(candidate: Path, where: Path) -> tuple[Folder, Ruling]:
    """Load a candidate as `policyd serve` would, its cases not run; raises UsageError and InvalidInput."""
    from policyd.config.settings import SETTINGS_FILE
    from policyd.instance import existing
    from policyd.offline.loaded import load_texts
    from policyd.reload.live import shipped_schemas
    from policyd.sources.files import Folder, digest, read_folder
    from policyd.state_paths import WORKLOADS_FILE

    found = read_folder(existing(candidate))
    texts = dict(found.texts)
    if WORKLOADS_FILE not in texts and not found.below("mesh"):  # policies alone
        base = read_folder(where)
        texts = {path: text for path, text in base.texts.items() if path not in base.below("policies")} | texts
    elif SETTINGS_FILE not in texts and (settings := read_folder(where).text(SETTINGS_FILE)):
        texts[SETTINGS_FILE] = settings  # without its trust domain nobody would be who he was
    texts = {path: text for path, text in texts.items() if not path.startswith("cases/")}
    folder = Folder(found.directory, texts, digest(texts))
    return folder, load_texts(folder, shipped_schemas()).ruling


def tally_of(journal: Path, span: Span, where: Path, folder: Folder, ruling: Ruling) -> Tally:
    """Replay the journal, with progress; raises JournalError."""
    from policyd.audit.scan import scan
    from policyd.cli.journal import say_broken
    from policyd.cli.waiting import counted, waiting
    from policyd.offline.replaying import before_of, deciders
    from policyd.offline.replaying import replay as decide_again
    from policyd.policy.replay import Projector

    chosen = scan(journal, span)
    with waiting("deciding again") as tell, deciders(folder, ruling) as ask:
        passed = counted(tell, chosen.size)
        records = (line.record for line in chosen.lines(say_broken, passed))
        return decide_again(records, Projector(ruling, before_of(where, _now(where))), ask)


def _now(where: Path) -> Ruling | None:
    """What the folder comes to as it is; None where that is nothing."""
    from policyd.errors import InvalidInput
    from policyd.offline.loaded import load_texts
    from policyd.reload.live import shipped_schemas
    from policyd.sources.files import Folder, digest, read_folder

    try:
        found = read_folder(where)
        texts = {path: text for path, text in found.texts.items() if not path.startswith("cases/")}
        return load_texts(Folder(where, texts, digest(texts)), shipped_schemas()).ruling
    except InvalidInput:
        return None


def value(tally: Tally, revision: str) -> dict[str, Any]:
    """Return the tally as JSON has it."""
    return {
        "candidate": revision,
        "records": tally.records,
        "distinct": tally.asked,
        "agreeing": tally.agreeing,
        "changed": [
            _row(change.same, told.seen) | {"now": change.now, "by": sorted(told.by)}
            for change, told in _most_first(tally.changed, lambda told: told.seen)
        ],
        "undecidable": [
            _row(same, seen) | {"lacking": list(lacking.names)}
            for (same, lacking), seen in _most_first(tally.undecidable, lambda seen: seen)
        ],
        "passed_over": dict(tally.passed_over),
    }


def lines(tally: Tally) -> Iterator[Any]:
    """Return what to print: how much was decided, what changes, what could not be decided."""
    from policyd.cli import output

    agree = f"{tally.agreeing:,} agree" if tally.records else "nothing to decide"
    yield f"{tally.records:,} recorded decisions, {tally.asked:,} different questions: {agree}"
    for reason, count in tally.passed_over.items():
        yield f"  {count:,} more are passed over: {reason}"
    if tally.changed:
        rows = [
            (*_cells(change.same), change.same.was, change.now, ", ".join(sorted(told.by)), *_seen(told.seen))
            for change, told in _most_first(tally.changed, lambda told: told.seen)
        ]
        yield from ("", f"{tally.differing:,} change:")
        yield output.table(("CALLER", "METHOD", "SERVICE", "WAS", "NOW", "BY", *_SEEN), rows[:MAX_ROWS])
        if len(rows) > MAX_ROWS:
            yield f"and {len(rows) - MAX_ROWS} more rows; `--json` has all"
    elif tally.records:
        yield "no decision changes"
    if tally.undecidable:
        held = [
            (*_cells(same), same.was, ", ".join(lacking.names), *_seen(seen))
            for (same, lacking), seen in _most_first(tally.undecidable, lambda seen: seen)
        ]
        yield from ("", f"{tally.undecided:,} cannot be decided, for want of what their records lack:")
        yield output.table(("CALLER", "METHOD", "SERVICE", "WAS", "LACKING", *_SEEN), held[:MAX_ROWS])
        if len(held) > MAX_ROWS:
            yield f"and {len(held) - MAX_ROWS} more rows; `--json` has all"


_SEEN: Final = ("COUNT", "FIRST", "LAST", "EXAMPLE")


def _most_first(found: Any, seen_of: Any) -> list[Any]:
    return sorted(found.items(), key=lambda item: (-seen_of(item[1]).count, item[0]))


def _cells(same: Same) -> tuple[str, str, str]:
    from policyd.audit.match import short_name

    return short_name(same.principal), short_name(same.action), short_name(same.resource)


def _seen(seen: Seen) -> tuple[str, str, str, str]:
    return f"{seen.count:,}", _when(seen.first), _when(seen.last), seen.example


def _when(moment: Any) -> str:
    from datetime import UTC

    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z" if moment else ""


def _row(same: Same, seen: Seen) -> dict[str, Any]:
    return same._asdict() | {
        "count": seen.count,
        "first": seen.first.isoformat() if seen.first else None,
        "last": seen.last.isoformat() if seen.last else None,
        "example": seen.example,
    }
