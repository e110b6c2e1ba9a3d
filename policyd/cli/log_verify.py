"""`policyd log verify`: prove that the journal is whole, or name the first record that is not.

Law: reads and changes nothing; what it trusts are root certificates, which an auditor brings along.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from policyd.cli.exits import Exit
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from policyd.audit.verify import How, Progress, Verdict
    from policyd.audit.verify_writer import Chain

_SEAL: Final = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")
SHOWN_EVERY: Final = 100_000  # records


def verify(
    directory: Dir = None,
    seals: Annotated[
        bool, typer.Option("--seals", help="Compare sealed files with their seals, without unpacking them: fast.")
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The mesh's root certificate (PEM; those before it too) that the seals have to lead to, from a source "
            "that you trust. "
            "Without it: the folder's own.",
            show_default=False,
        ),
    ] = None,
    expect: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER:HASH",
            help="A seal that was noted before: it has to be there, so that nothing up to it was cut off.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Prove that no record was changed, added or taken out: seals, numbers without gap, hashes that chain.

    Exit code 1 names the first record that does not fit.
    """
    from policyd.audit.verify import verify as verify_journal
    from policyd.ca.sealing import fingerprint
    from policyd.cli.journal import journal_of
    from policyd.cli.output import print_json

    journal = journal_of(directory)
    roots = _roots(root, journal)
    how = _how(roots, seals, expect)
    verdict = verify_journal(journal, how, _progress())
    trusted = fingerprint(roots[-1]) if roots else ""
    if as_json:
        print_json(_value(verdict, trusted))
    else:
        _show(verdict, trusted)
    return Exit.ERROR if verdict.problems else Exit.OK


def _how(roots: tuple[Certificate, ...], seals: bool, expect: str | None) -> How:
    from policyd.audit.verify import How
    from policyd.ca.sealing import JournalTrust

    trust = JournalTrust(roots[-1], roots) if roots else None
    return How(trust, seals, _noted(expect), jobs=len(os.sched_getaffinity(0)))


def _noted(text: str | None) -> tuple[int, str] | None:
    from policyd.errors import UsageError

    if text is None:
        return None
    found = _SEAL.fullmatch(text)
    if found is None:
        raise UsageError(f"`{text[:100]}` is no seal", remedy="write it as `log verify` shows the newest one")
    return int(found[1]), found[2]


def _roots(file: Path | None, journal: Path) -> tuple[Certificate, ...]:
    """The certificates that are trusted, the newest last; none where the folder has no authority. Raises UsageError."""
    from policyd.ca.sealing import read_roots
    from policyd.errors import IdentityError, UsageError

    path = file or journal.parent / "ca" / "root.pem"
    try:
        return read_roots(path.read_bytes())
    except FileNotFoundError as error:
        if file is None:
            return ()
        raise UsageError(f"`{path}` is not there", remedy="name the mesh's root certificate") from error
    except OSError as error:
        raise UsageError(f"`{path}` cannot be read: {error.strerror}", remedy="name another copy of it") from error
    except IdentityError as error:
        raise UsageError(f"`{path}`: {error.message}", remedy="name the mesh's root certificate") from error


def _progress() -> Progress:
    """Tells people at a terminal how far it is; nobody else."""
    if not sys.stderr.isatty():
        return lambda _: None
    done = 0

    def tell(records: int) -> None:
        nonlocal done
        before, done = done, done + records
        if before // SHOWN_EVERY != done // SHOWN_EVERY:
            sys.stderr.write(f"\r{done:,} sealed records checked")
            sys.stderr.flush()

    return tell


def _show(verdict: Verdict, trusted: str) -> None:
    from policyd.cli.output import show

    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    for chain in verdict.chains:
        show(_line(chain))
    if verdict.newest is not None:
        seal = verdict.newest
        show(f"newest seal: {seal.number}:{seal.hash}, of {seal.time:%FT%TZ}, by the root {trusted}")
    for problem in verdict.problems:
        show(f"broken: {problem}")
    if not verdict.problems:
        show("whole" if verdict.chains else "nothing is recorded yet")


def _line(chain: Chain) -> str:
    span = f"{chain.count} records, {chain.first} to {chain.last}" if chain.count else "no record"
    span += f" without {chain.retired} that are retired" if chain.retired else ""
    sealed = f", sealed to {chain.sealed}" if chain.sealed else ""
    pending = f", then {chain.pending} bytes that are no whole record yet" if chain.pending else ""
    return f"{chain.writer}: {span}{sealed}{pending}"


def _value(verdict: Verdict, trusted: str) -> dict[str, Any]:
    seal = verdict.newest
    newest = {"number": seal.number, "hash": seal.hash, "time": f"{seal.time:%FT%TZ}"} if seal else None
    return {
        "whole": not verdict.problems,
        "writers": [
            {
                "writer": chain.writer,
                "first": chain.first,
                "last": chain.last,
                "sealed": chain.sealed,
                "retired": chain.retired,
                "pending_bytes": chain.pending,
            }
            for chain in verdict.chains
        ],
        "newest_seal": newest,
        "root_sha256": trusted,
        "problems": [
            {"code": one.code, "message": one.message, "file": one.file, "line": one.line, "remedy": one.remedy}
            for one in verdict.problems
        ],
    }
