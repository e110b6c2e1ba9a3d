"""The server's side of kept revisions: what comes into force is written down first, for as long as records of it are.

Law: what is in force can be read back, or it does not come into force. A text that does not change is kept once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec
import zstandard

from policyd.errors import StateError
from policyd.sources.files import digest
from policyd.sources.revisions import FORMAT, SCHEMA, Kept, hash_of, history, read, unpack
from policyd.sources.state import private_folder, write_private

MAX_KEPT: Final = 1_000  # folders; the oldest go first
MAX_TIMES: Final = 100  # of one folder
MAX_PACKS: Final = 64  # of one folder; then its texts are kept anew, together


class RevisionStore:
    """Keeps what comes into force, for as long as the journal keeps records. Safe for concurrent use in one process."""

    def __init__(
        self, root: Path, clock: Callable[[], datetime], *, retain: float, version: str, most: int = MAX_KEPT
    ) -> None:
        self._root, self._clock, self._most = root, clock, most
        self._retain, self._version = timedelta(seconds=retain), version
        self._lock = Lock()
        self._kept: list[Kept] = []
        self._texts: Mapping[str, str] = {}  # hash -> pack, of what is in force
        self._newest: tuple[Kept, Kept | None] | None = None  # what was kept last, and in whose place
        self._amiss: dict[str, Kept | None] = {}  # files that tell what never was in force, and what they should
        try:
            private_folder(root, os.getuid())
            self._sweep(root.glob(".*.tmp"))
        except OSError as error:
            raise _unwritable(root, error) from None
        self._kept += history(root).kept
        if self._kept:
            self._texts = _known(root, self._kept[-1])

    def keep(self, revision: str, policies: int, texts: Mapping[str, str], schema: str) -> Kept:
        """Keep a folder, which is in force from now on; raises StateError where it cannot be written."""
        whole = {SCHEMA: schema, **texts}
        name = digest(whole)
        with self._lock:
            before = next((one for one in self._kept if (one.revision, one.digest) == (revision, name)), None)
            self._newest = None
            if before is not None and before is self._kept[-1] and self._texts:
                return before
            known = _known(self._root, before) if before else {}
            tree = {path: hash_of(text) for path, text in whole.items()}
            listing = msgspec.json.encode(tree, order="sorted").decode()
            since = before.since if before else ()
            try:
                known = known or self._write({hash_of(one): one for one in (*whole.values(), listing)})
                kept = Kept(
                    format=FORMAT,
                    revision=revision,
                    digest=name,
                    version=self._version,
                    policies=policies,
                    since=(*since, self._clock())[-MAX_TIMES:],
                    tree=hash_of(listing),
                    packs=tuple(sorted(set(known.values()))),
                )
                self._amiss[kept.name] = before
                write_private(self._root / kept.name, msgspec.json.encode(kept))
                del self._amiss[kept.name]
            except OSError as error:
                raise _unwritable(self._root, error) from None
            self._texts, self._kept = known, [*(one for one in self._kept if one is not before), kept]
            self._newest = kept, before
        self.expire()
        return kept

    def take_back(self) -> None:
        """What `keep` has kept anew did not come into force; raises StateError where it cannot be made undone now.

        That is tried again by `expire`, and so by the next `keep`.
        """
        with self._lock:
            if self._newest is None:
                return
            (kept, before), self._newest = self._newest, None
            rest = [one for one in self._kept if one is not kept]
            self._kept = sorted([*rest, before] if before else rest, key=lambda one: one.last)
            self._amiss[kept.name] = before
            try:
                self._put_right()
            except OSError as error:
                raise _unwritable(self._root, error) from None
            finally:
                self._texts = _known(self._root, self._kept[-1]) if self._kept else {}

    def _put_right(self) -> None:
        for name, before in list(self._amiss.items()):
            if before is None:
                (self._root / name).unlink(missing_ok=True)
            else:
                write_private(self._root / name, msgspec.json.encode(before))
            del self._amiss[name]

    def _write(self, texts: Mapping[str, str]) -> Mapping[str, str]:
        """Write those of `texts`, by hash, that were not in force before; give the pack of each."""
        known = self._texts if len(set(self._texts.values())) < MAX_PACKS else {}
        new = {name: text for name, text in texts.items() if name not in known}
        data = zstandard.compress(msgspec.msgpack.encode(new, order="sorted"))
        pack = hashlib.sha256(data).hexdigest()
        write_private(self._root / f"{pack}.pack", data)
        return {name: known.get(name, pack) for name in texts}

    def expire(self) -> None:
        """Forget what was in force before the time that the journal keeps, and what nothing needs any more."""
        with self._lock:
            with suppress(OSError):  # which it does not take back yet
                self._put_right()
            oldest = self._clock() - self._retain
            ends = [after.last for after in self._kept[1:]]
            old = [one for one, end in zip(self._kept, ends, strict=False) if end < oldest]
            old += [one for one in self._kept[: -self._most] if one not in old]
            if not old:
                return
            self._kept = [one for one in self._kept if one not in old]
            used = {f"{pack}.pack" for one in self._kept for pack in one.packs}
            self._sweep(self._root / one.name for one in old)
            self._sweep(path for path in self._root.glob("*.pack") if path.name not in used)

    def _sweep(self, paths: Iterable[Path]) -> None:
        for path in list(paths):
            try:
                path.unlink(missing_ok=True)
            except OSError:  # it is tried again with the next that expires
                continue


def _known(root: Path, kept: Kept) -> Mapping[str, str]:
    """Where the texts of a kept folder are, by hash; nothing of one that is damaged, so that all is kept anew."""
    try:
        packs = {one: pack for pack in kept.packs for one in unpack(root / f"{pack}.pack")}
        tree = read(root, kept)
    except StateError:
        return {}
    needed = {kept.tree, hash_of(tree.schema), *map(hash_of, tree.texts.values())}
    return {one: pack for one, pack in packs.items() if one in needed}


def _unwritable(root: Path, error: OSError) -> StateError:
    reason = (error.strerror or str(error)).lower()
    return StateError(f"a revision cannot be kept in `{root}`: {reason}", remedy="check the disk and the owner")
