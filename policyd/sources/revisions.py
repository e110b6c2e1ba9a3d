"""Every revision that was in force, kept beside the journal, so that it can be decided and explained under it later.

    kept = find(paths.revisions, "3f9a", at=record.time)    by the first digits; needs no server
    kit = read(paths.revisions, kept)                       kit.texts by path, kit.schema, kit.folder(directory)

`policyd.offline.revisions.load_revision` makes the Live of it; `RevisionStore` in revision_store.py is the server's,
which keeps them. A revision names what decides; the same one may have been in force with other texts (a comment, a
route, a policy on trial), and each is kept: `at` finds the one of that time.

    <revision>.<digest>.json    one folder as it was in force: since when, and where its texts are
    <sha256>.pack               texts that were new with it, by their hashes, and which file had which

Law: whole or not at all, also after a crash; what does not have the hash that it is named by is refused, never used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import zstandard

from policyd.errors import NotFound, StateError, UsageError
from policyd.sources.files import Folder, digest
from policyd.sources.reading import reason

FORMAT: Final = 1
MAX_ENTRY_BYTES: Final = 65_536
MAX_PACK_BYTES: Final = 512 << 20
MIN_PREFIX: Final = 4
SHORT: Final = 12  # digits of a revision that people are shown
SCHEMA: Final = ""  # its name among the paths

_NAME: Final = re.compile(r"([0-9a-f]{64})\.([0-9a-f]{64})\.json")
_PREFIX: Final = re.compile(r"[0-9a-f]{1,64}")
_REMEDY: Final = "restore it from a backup, or delete it: what it kept can be explained no more"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that was in force. `since` are the times when it came, the last of them; `tree` is the hash of
    which file has which text; `version` is that of the policyd that decided.
    """

    format: int
    revision: str
    digest: str
    version: str
    policies: int
    since: tuple[datetime, ...]
    tree: str
    packs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its file."""
        return f"{self.revision}.{self.digest}.json"

    @property
    def last(self) -> datetime:
        """When it came into force for the last time."""
        return self.since[-1]


@dataclass(frozen=True, slots=True)
class Kit:
    """What a revision was made of: the folder's texts by path, and the schema of traffic."""

    kept: Kept
    texts: Mapping[str, str]
    schema: str

    def folder(self, directory: Path) -> Folder:
        """The texts as a folder that is read; `directory` is where they came from."""
        return Folder(directory, self.texts, digest(self.texts))


@dataclass(frozen=True, slots=True)
class History:
    """Every kept folder, what came into force last at the end; `damaged` are files that cannot be read."""

    kept: tuple[Kept, ...] = ()
    damaged: tuple[Path, ...] = ()


def history(root: Path) -> History:
    """Read what is kept below `root`; raises StateError where the folder cannot be read."""
    kept, damaged = [], []
    try:
        names = sorted(entry.name for entry in root.iterdir())
    except FileNotFoundError:
        return History()
    except OSError as error:
        raise StateError(f"`{root}` cannot be read: {reason(error)}", remedy="check its owner and mode") from None
    for name in filter(_NAME.fullmatch, names):
        try:
            kept.append(_entry(root / name))
        except FileNotFoundError:  # expired between our look and now
            continue
        except StateError:
            damaged.append(root / name)
    return History(tuple(sorted(kept, key=lambda one: one.last)), tuple(damaged))


def find(root: Path, prefix: str, at: datetime | None = None) -> Kept:
    """Find a revision below `root`, as `find_in`."""
    return find_in(history(root), prefix, at)


def find_in(known: History, prefix: str, at: datetime | None = None) -> Kept:
    """Find a revision by the first digits of its hash; of its texts those that were in force `at` that time, or last.

    Raises UsageError for what is no hash, NotFound for one that names none or several, StateError for a damaged one.
    """
    if not _PREFIX.fullmatch(prefix) or len(prefix) < MIN_PREFIX:
        message = f"`{prefix[:80]}` is no revision"
        raise UsageError(message, remedy=f"write {MIN_PREFIX} to 64 of its digits, 0 to 9 and a to f")
    damaged = [path for path in known.damaged if path.name.startswith(prefix)]
    found = [one for one in known.kept if one.revision.startswith(prefix)]
    revisions = sorted({one.revision for one in found} | {path.name[:64] for path in damaged})
    if len(revisions) > 1:
        listed = ", ".join(f"`{one[:SHORT]}`" for one in revisions[:10])
        raise NotFound(f"`{prefix}` is short for {len(revisions)} revisions: {listed}", remedy="write more digits")
    if not found and damaged:
        _entry(damaged[0])  # says what is wrong with it
    if not found:
        remedy = "`policyd policy revisions` lists them" if known.kept else "one is kept when the folder is served"
        raise NotFound(f"no revision `{prefix}` is kept", remedy=remedy)
    return _in_force(found, at)


def _in_force(found: Sequence[Kept], at: datetime | None) -> Kept:
    """The one that came last before `at`; the first one where all came later."""
    before = [(moment, one) for one in found for moment in one.since if at is None or moment <= at]
    if not before:
        return min(found, key=lambda one: one.since[0])
    return max(before, key=lambda pair: pair[0])[1]


def read(root: Path, kept: Kept) -> Kit:
    """Read the texts of a kept folder; raises StateError where some are missing or damaged."""
    found: dict[str, str] = {}
    for pack in kept.packs:
        found |= unpack(root / f"{pack}.pack")
    tree = _tree(root, kept, found)
    missing = [path for path, name in tree.items() if name not in found]
    if missing:
        raise StateError(f"revision `{kept.revision[:SHORT]}` is damaged: `{missing[0]}` is lost", remedy=_REMEDY)
    texts = {path: found[name] for path, name in tree.items() if path != SCHEMA}
    return Kit(kept, texts, found[tree[SCHEMA]])


def _tree(root: Path, kept: Kept, found: Mapping[str, str]) -> dict[str, str]:
    try:
        tree = msgspec.json.decode(found[kept.tree], type=dict[str, str])
    except (KeyError, msgspec.MsgspecError):
        tree = {}
    if SCHEMA not in tree:
        raise StateError(f"`{root / kept.name}` is damaged: it names what no pack holds", remedy=_REMEDY)
    return tree


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Give what files differ, each with `added`, `removed` or `changed`."""
    for path in sorted({*before, *after}):
        if before.get(path) != after.get(path):
            yield path, "added" if path not in before else "removed" if path not in after else "changed"


def _entry(path: Path) -> Kept:
    with path.open("rb") as file:
        data = file.read(MAX_ENTRY_BYTES + 1)
    try:
        kept = msgspec.json.decode(data, type=Kept)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StateError(f"`{path}` is damaged: {error}", remedy=_REMEDY) from None
    if kept.format > FORMAT:
        message = f"`{path}` has format {kept.format}, this policyd knows {FORMAT}"
        raise StateError(message, remedy="use the newer policyd that wrote it")
    if kept.name != path.name or not kept.since or any(moment.tzinfo is None for moment in kept.since):
        raise StateError(f"`{path}` is damaged: it is not what its name says", remedy=_REMEDY)
    return kept


def unpack(path: Path) -> dict[str, str]:
    """Read the texts of a pack, by their hashes; raises StateError."""
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != path.stem:
            raise StateError(f"`{path}` is damaged: it has not the hash that it is named by", remedy=_REMEDY)
        packed = zstandard.decompress(data, max_output_size=MAX_PACK_BYTES)
        return msgspec.msgpack.decode(packed, type=dict[str, str])
    except FileNotFoundError:
        raise StateError(f"`{path}` is lost", remedy=_REMEDY) from None
    except OSError as error:
        raise StateError(f"`{path}` cannot be read: {reason(error)}", remedy="check its owner and mode") from None
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise StateError(f"`{path}` is damaged: {error}", remedy=_REMEDY) from None


def hash_of(text: str) -> str:
    """The name of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
