"""The journal of one process of the server, as the settings want it, and what seals all of them.

Law: only the control process seals, since only it reaches the authority.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from policyd.audit.appender import Limits
from policyd.audit.disk import Disk
from policyd.audit.exported import taken
from policyd.audit.group import Waiting
from policyd.audit.journal import Journal, Observer
from policyd.audit.operations import operation, owner
from policyd.audit.retention import Keep
from policyd.audit.rules import KEY_BYTES, Masker, make_masker
from policyd.audit.sealer import Sealer
from policyd.audit.writer import writer_name
from policyd.ca.files import read_secret
from policyd.ca.issuer import Issuer
from policyd.ca.sealing import SealingKeys
from policyd.config.audit import AuditSettings
from policyd.errors import StateError
from policyd.state_paths import StatePaths

COMMAND: Final = "command"  # the role of a command that changes something itself, whether a server runs or not


def note(
    paths: StatePaths, audit: AuditSettings, clock: Callable[[], datetime], name: str, detail: Mapping[str, object]
) -> None:
    """Put on record, on the medium, what a command is about to do; raises StateError or JournalError, and then it does
    nothing.
    """
    settings = audit.model_copy(update={"durability": "fsync", "on_full": "deny"})
    with open_journal(paths, COMMAND, settings, clock) as journal:
        journal.append(operation(clock(), name, detail, by=owner(os.getuid())))


@contextmanager
def open_journal(
    paths: StatePaths,
    role: str,
    audit: AuditSettings,
    clock: Callable[[], datetime],
    observer: Observer | None = None,
    waiting: Waiting | None = None,
) -> Iterator[Journal]:
    """The journal of the process that is `role` to this folder; raises StateError or JournalError."""
    folder = paths.journal
    journal = Journal(
        folder,
        writer_name(folder, role, lambda: secrets.token_hex(4)),
        clock,
        limits=limits(audit),
        durability=audit.durability,
        on_full=audit.on_full,
        observer=observer,
        masker=_masker(paths, audit),
        waiting=waiting,
    )
    try:
        yield journal
    finally:
        journal.close()


def limits(audit: AuditSettings) -> Limits:
    """When a segment is full."""
    return Limits(max_bytes=audit.segment_size, max_age=audit.segment_age)


def make_sealer(paths: StatePaths, audit: AuditSettings, issuer: Issuer, clock: Callable[[], datetime]) -> Sealer:
    """What looks after the files of the journal of this folder."""

    def finish(writer: str) -> None:
        journal = Journal(paths.journal, writer, clock, limits=limits(audit), durability="fsync")
        journal.turn()
        journal.close()

    targets = [audit.export.name] if audit.export else []
    return Sealer(
        paths.journal,
        clock,
        signer=SealingKeys(issuer.issue_journal, clock),
        finish=finish,
        keep=Keep(audit.retain, audit.max_size),
        max_age=audit.segment_age,
        taken=lambda: taken(paths.journal, targets),
    )


def _masker(paths: StatePaths, audit: AuditSettings) -> Masker | None:
    if not any(rule.how == "hash" for rule in audit.mask):
        return make_masker(audit.mask, b"")
    return make_masker(audit.mask, mask_key(paths.mask_key))


def mask_key(path: Path) -> bytes:
    """The key of the keyed hash, made by whoever needs it first; raises StateError or KeyFileError."""
    try:
        Disk().write_once(path, lambda: secrets.token_hex(KEY_BYTES))
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"`{path}` cannot be written", remedy="check the disk and the owner") from error
    try:
        key = bytes.fromhex(read_secret(path).decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise StateError(f"`{path}` is no key", remedy="restore it from a copy, or remove it: hashes then begin anew")
    return key
