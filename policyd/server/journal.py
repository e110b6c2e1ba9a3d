"""The journal of one process of the server, as the settings want it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from policyd.audit.appender import Limits
from policyd.audit.journal import Journal, Observer, writer_name
from policyd.config import AuditSettings


@contextmanager
def open_journal(
    folder: Path, role: str, audit: AuditSettings, clock: Callable[[], datetime], observer: Observer
) -> Iterator[Journal]:
    """The journal of the process that is `role` to this folder; raises StateError or JournalError."""
    journal = Journal(
        folder,
        writer_name(folder, role, lambda: secrets.token_hex(4)),
        clock,
        limits=Limits(),
        durability=audit.durability,
        on_full=audit.on_full,
        observer=observer,
    )
    try:
        yield journal
    finally:
        journal.close()
