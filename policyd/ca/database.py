"""The small database of the issuing side: join tokens, agents and what they hold, entries of processes, counts.

Law: one file of mode 0600, one writer at a time, and a transaction either holds as a whole or never was; what must
not be forgotten, as a used token, is on the disk before anybody hears of it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from policyd.ca.files import check_private, write_new
from policyd.errors import StateError

VERSION: Final = 5
BUSY_SECONDS: Final = 5.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS token (
  hash BLOB PRIMARY KEY, agent TEXT NOT NULL, workloads TEXT NOT NULL,
  created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, used_at INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS agent (
  name TEXT PRIMARY KEY, workloads TEXT NOT NULL, registered_at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS issued (kind TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS entry (
  id TEXT PRIMARY KEY, spiffe_id TEXT NOT NULL, selectors TEXT NOT NULL, hint TEXT NOT NULL, created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS revoked (
  spiffe_id TEXT PRIMARY KEY, since INTEGER NOT NULL, reason TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS revoked_serial (
  serial TEXT PRIMARY KEY, spiffe_id TEXT NOT NULL, since INTEGER NOT NULL, ends INTEGER NOT NULL, reason TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS holding (
  agent TEXT PRIMARY KEY, sequence INTEGER NOT NULL, behind TEXT NOT NULL, authorities TEXT NOT NULL,
  heard INTEGER NOT NULL
) STRICT;
PRAGMA user_version = 5;
"""


class Database:
    """One connection, usable from several threads; `transaction` is the only way in."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._lock = threading.RLock()

    @contextmanager
    def transaction(self, *, at_once: bool = True) -> Iterator[sqlite3.Connection]:
        """A write transaction: kept when the block ends well, undone when it raises.

        `at_once`: on the disk when it ends; else a power cut, and nothing less, may undo it for some seconds.
        Other connections wait for it, up to five seconds. Raises StateError where the database fails. Within a
        transaction of the same thread it is part of the outer one.
        """
        with self._lock, _explained(self._path):
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if at_once else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()


def open_database(path: Path) -> Database:
    """Open `path`, made with mode 0600 where there is none.

    Raises StateError for a file that is broken, of a newer version or cannot be opened, KeyFileError for one that
    others may use.
    """
    try:
        if not os.path.lexists(path):
            write_new(path, b"")
        check_private(path, path.lstat())
    except OSError as error:
        raise StateError(f"`{path}` cannot be opened: {error.strerror}", remedy="look at its owner") from error
    with _explained(path):
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _prepare(path, connection)
        except BaseException:
            connection.close()
            raise
    return Database(path, connection)


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA trusted_schema = OFF")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise StateError(f"`{path}` is of a newer version of policyd", remedy="start that version")
    if version < VERSION:  # what older versions lack is added, nothing of theirs is changed
        connection.executescript(f"BEGIN EXCLUSIVE;{_SCHEMA}COMMIT;")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StateError(f"`{path}` is damaged", remedy=_ANEW)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        remedy = "look at the disk's free space and who else has it open"
        raise StateError(f"`{path}` cannot be used: {error}", remedy=remedy) from error
    except sqlite3.Error as error:
        raise StateError(f"`{path}` is damaged: {error}", remedy=_ANEW) from error


_ANEW: Final = "move it away: agents then join again with new tokens"
