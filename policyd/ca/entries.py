"""Which processes are which workload: registration entries, kept until they are deleted.

Law: an entry names what an agent can find out about a process by itself, and a process is the workload only if it
has all of it. What an entry leads to is a declared workload; policies decide even so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from policyd.ca.database import Database
from policyd.errors import EntryError
from policyd.spiffe import SpiffeId

MAX_ENTRIES: Final = 2_000
MAX_SELECTORS: Final = 16  # of one entry
MAX_HINT: Final = 64  # characters
ID_BYTES: Final = 6
INSTANCE: Final = "policyd:instance:"  # what `policyd up` started has it; nobody can register it

_SELECTOR: Final = re.compile(
    r"unix:(?:(?:uid|gid):[0-9]{1,10}|(?:user|group):[A-Za-z0-9._@-]{1,64}"
    r"|path:/[\x21-\x7e]{0,1023}|sha256:[0-9a-f]{64})"
    r"|k8s:(?:ns:[a-z0-9.-]{1,63}|(?:sa|pod):[a-z0-9.-]{1,253})"
    r"|x509:(?:sha256:[0-9a-f]{64}|(?:cn|dns):[\x20-\x7e]{1,253})"
)
_KINDS: Final = {"unix": "unix", "policyd": "unix", "k8s": "kubernetes", "x509": "x509"}


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A process that has all of `selectors` is `spiffe_id`; `hint` tells a process several of its identities apart."""

    spiffe_id: SpiffeId
    selectors: frozenset[str]
    hint: str = ""
    id: str = ""

    @property
    def evidence(self) -> str:
        """The kind that its selectors are of, as the schema of issuance has it; "" for several."""
        kinds = {one.partition(":")[0] for one in self.selectors}
        return _KINDS.get(kinds.pop(), "") if len(kinds) == 1 else ""

    def fits(self, found: Iterable[str]) -> bool:
        """Is a process of which this was `found` meant?"""
        return self.selectors <= set(found)


def check_entry(entry: Entry) -> Entry:
    """Return an entry that may be kept; raises EntryError."""
    if not 1 <= len(entry.selectors) <= MAX_SELECTORS:
        raise EntryError(f"an entry has 1 to {MAX_SELECTORS} selectors, this one {len(entry.selectors)}")
    for selector in sorted(entry.selectors):
        if not _SELECTOR.fullmatch(selector):
            raise EntryError(
                f"`{selector[:100]}` is no selector",
                remedy="write unix:uid:1000, unix:user:A, unix:gid:9, unix:group:A, unix:path:/FILE or "
                "unix:sha256:HEX; k8s:ns:A, k8s:sa:A or k8s:pod:A; x509:cn:A, x509:dns:A or x509:sha256:HEX",
            )
    if not entry.evidence:
        raise EntryError("the selectors of an entry are of one kind", remedy="make an entry for each kind")
    if len(entry.hint) > MAX_HINT or not entry.hint.isprintable():
        raise EntryError(f"a hint has at most {MAX_HINT} printable characters")
    return entry


def entry_of_instance(name: str, spiffe_id: SpiffeId) -> Entry:
    """What makes a process that `policyd up` started for an instance that instance's workload."""
    return Entry(spiffe_id, frozenset({INSTANCE + name}))


class Entries:
    """The entries of one mesh."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, entry: Entry, now: int, record: Callable[[], object] = lambda: None) -> None:
        """Keep an entry under its id, once `record` is done; raises EntryError for one that is unsound, or too many."""
        check_entry(entry)
        with self._database.transaction() as connection:
            (number,) = connection.execute("SELECT count(*) FROM entry").fetchone()
            if number >= MAX_ENTRIES:
                raise EntryError(f"there are {MAX_ENTRIES} entries already", remedy="delete some that nobody needs")
            same = "SELECT id FROM entry WHERE spiffe_id = ? AND selectors = ?"
            found = connection.execute(same, (str(entry.spiffe_id), _dump(entry.selectors))).fetchone()
            if found:
                raise EntryError(f"the entry `{found[0]}` says the same", remedy="delete it first to change its hint")
            connection.execute(
                "INSERT INTO entry (id, spiffe_id, selectors, hint, created_at) VALUES (?, ?, ?, ?, ?)",
                (entry.id, str(entry.spiffe_id), _dump(entry.selectors), entry.hint, now),
            )
            record()

    def all(self) -> tuple[Entry, ...]:
        """Every entry, by identity."""
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT spiffe_id, selectors, hint, id FROM entry").fetchall()
        return tuple(sorted(map(_parsed, rows), key=lambda one: (one.spiffe_id, sorted(one.selectors))))

    def delete(self, identifier: str, record: Callable[[Entry], object] = lambda _: None) -> Entry | None:
        """Forget an entry, once `record` is done; returns it, or None where there is none."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "DELETE FROM entry WHERE id = ? RETURNING spiffe_id, selectors, hint, id", (identifier,)
            ).fetchone()
            entry = _parsed(row) if row else None
            if entry is not None:
                record(entry)
        return entry


def _parsed(row: tuple[str, str, str, str]) -> Entry:
    spiffe_id, selectors, hint, identifier = row
    return Entry(SpiffeId.parse(spiffe_id), frozenset(json.loads(selectors)), hint, identifier)


def _dump(selectors: Iterable[str]) -> str:
    return json.dumps(sorted(selectors))
