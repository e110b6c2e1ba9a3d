"""What sidecars had decided, and what was said of it, that was on record before this start.

Law: a batch is one write, and its spool's place is noted after it. A crash between the two, or within the write, leaves
on record what its agent then sends again; the journal's own end says what that is, and none of it is put there twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog

from policyd.audit.read import Line, ends, newest
from policyd.audit.record import Entry
from policyd.audit.stencil import Own, Stencil
from policyd.authz.local_record import BY_PROXY
from policyd.errors import BrokenRecord

MOST_RECORDS: Final = 32_768  # more than a batch has, and what came beside it
MOST_BYTES: Final = 64 << 20
SAID: Final = frozenset({"local.gap", "local.differs"})

_Key = tuple[object, ...]

_log = structlog.get_logger("policyd.server")


def lines_so_far(directory: Path, writer: str) -> Callable[[], Iterator[Line]]:
    """A way to read, whenever it is called, what a writer has on record by now, the newest first.

    Raises JournalError where the folder cannot be listed.
    """
    positions = {name: end for name, end in ends(directory).items() if name == writer}
    return lambda: newest(directory, positions, _pass_over)


class OnRecord:
    """Read from `lines`, the newest first, when it is first asked for; not for two threads at once."""

    def __init__(self, lines: Callable[[], Iterable[Line]]) -> None:
        self._lines = lines
        self._keys: frozenset[_Key] | None = None

    def new_of(self, filled: Sequence[tuple[Stencil, Own]]) -> list[tuple[Stencil, Own]]:
        """Those that were not there; raises JournalError where the journal cannot be read."""
        if self._keys is None:
            self._keys = frozenset(_keys(self._lines()))
        if not self._keys:
            return list(filled)
        return [one for one in filled if _key(one[0].entry, one[1].decision_id) not in self._keys]


def _keys(lines: Iterable[Line]) -> Iterator[_Key]:
    size = 0
    try:
        for number, (record, raw) in enumerate(lines):
            size += len(raw)
            if number >= MOST_RECORDS or size > MOST_BYTES:
                return
            if record.decided_by == BY_PROXY or record.detail.get("operation") in SAID:
                yield _key(record, record.decision_id)
    except OSError as error:  # what comes twice then is better than what never comes
        _log.error("local.earlier_unread", reason=error.strerror)


def _key(entry: Entry, decision_id: str) -> _Key:
    """What no two records have in common; an agent has a say about the ids of its own instances alone."""
    return tuple(sorted(entry.detail.items())) if entry.detail else (entry.proxy, decision_id)


def _pass_over(_: BrokenRecord) -> None:
    """Who verifies the journal is told."""
