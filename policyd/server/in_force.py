"""What is in force, and every way in which that changes: the folder, who answers, whose sidecars are believed.

Law: a change of the folder is on record before it takes effect; then decisions follow it, and after them the proxies,
who so never ask about what is not known.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

import structlog

from policyd.audit.record import Entry, Fault
from policyd.authz.ruling import Ruling
from policyd.ca.revocations import FILE, Revocations, forbids
from policyd.errors import InvalidInput, JournalError, Problem, StateError
from policyd.keeper import Keeper
from policyd.mesh.model import Mesh
from policyd.reload.live import Earlier, Live, shipped_schemas
from policyd.reload.load import load, reenforce, relive
from policyd.reload.unread import every_problem
from policyd.server.key_fetching import with_keys
from policyd.server.last_good import LastGood
from policyd.server.local_decisions import Rulings
from policyd.server.state import Placer
from policyd.server.stores import Stores
from policyd.sources.files import Folder, UnreadFolder, digest
from policyd.sources.relations import beside
from policyd.sources.revision_store import RevisionStore
from policyd.spiffe import SpiffeId
from policyd.telemetry.metrics import Metrics
from policyd.xds.cache import SnapshotCache
from policyd.xds.resources.model import Control

COLLECT_AFTER: Final = 20_000  # new objects; what streams hold of proxies is seldom looked through for what goes
_log = structlog.get_logger("policyd.server")


@dataclass(frozen=True, slots=True)
class Parts:
    """With what it works.

    `living` is a mesh with the instances that do not answer marked as such. `decide` has all decisions made by a
    ruling, and returns when they are; `taken` is told of a change after that. `record` appends to the journal.
    """

    read: Callable[[], Folder]
    stores: Stores
    placer: Placer
    control: Control
    living: Callable[[Mesh], Mesh]
    rulings: Rulings
    revisions: RevisionStore
    cache: SnapshotCache
    metrics: Metrics
    record: Callable[[Entry], object]
    decide: Callable[[Ruling], object]
    taken: Callable[[Live], object]
    clock: Callable[[], datetime]


class InForce:
    """Holds the Live in force in its `keeper`, and changes it; `good` is what to begin with where the folder is bad.

    Made, it has read the folder and nothing has taken effect; raises PolicydError where there is nothing to begin with.
    For any thread, but for `show`.
    """

    def __init__(self, parts: Parts, good: LastGood | None) -> None:
        self._parts = parts
        self._schemas = shipped_schemas()
        self._earlier = Earlier()
        self._unread: tuple[object, tuple[Problem, ...]] | None = None  # of a folder not read whole
        begin = (self._whole(good.folder), good.problems) if good else ()
        self.keeper = Keeper(self._read, self._build, self._keep, self._heard, *begin)
        gc.freeze()  # most of it stays: the collector need not look at it at every change
        gc.set_threshold(COLLECT_AFTER)

    @property
    def live(self) -> Live:
        """All of it."""
        return self.keeper.live

    def mesh(self) -> Mesh:
        """The mesh in force."""
        return self.live.mesh

    def mesh_and_revision(self) -> tuple[Mesh, str]:
        """The mesh, and the revision of the policies that are in force with it."""
        live = self.live
        return live.mesh, live.ruling.revision

    def begin(self) -> None:
        """Keep what the server begins with, and show it to proxies."""
        if self.keeper.refused:
            self._heard(None, self.keeper.refused)
        self._parts.placer.keep(self.live.placement)
        self._keep_revision(self.live)
        self._parts.metrics.ruled(self.live.ruling.revision)
        self.show()

    def show(self) -> None:
        """Send proxies what is in force by now. For the thread of the server's loop alone."""
        self._parts.cache.set_all(self.live.snapshots)

    def renew(self) -> None:
        """Have callers led to the instances that answer now, once that is shown to proxies."""
        self._renew(lambda live: relive(live, self._parts.control, self._parts.living))

    def distrusts(self, workload: SpiffeId, revision: str) -> bool:
        """No sidecar of a workload is believed any more: from now on it asks, where that is `auto`.

        Returns whether that is news; then proxies are to be shown it.
        """
        if not self._parts.stores.distrust.add(workload, revision):
            return False
        self._renew(lambda live: reenforce(live, self._parts.control, self._parts.stores.distrust.of))
        return True

    def _renew(self, change: Callable[[Live], Live]) -> None:
        def changed(live: Live) -> Live:
            again = change(live)
            self._earlier = replace(self._earlier, snapshots=again.snapshots, enforced=again.enforced)
            return again

        self.keeper.renew(changed)

    def _read(self) -> Folder:
        try:
            return self._whole(self._parts.read())
        except UnreadFolder as error:
            raise self._every_problem(error) from None

    def _every_problem(self, unread: UnreadFolder) -> InvalidInput:
        """What was found in the same texts before is not looked for again: a folder that is refused is read often."""
        if unread.rest is None:
            return unread
        seen = (tuple(unread.problems), self._whole(unread.rest).digest)
        if self._unread is None or self._unread[0] != seen:
            self._unread = seen, tuple(every_problem(unread, self._schemas, self._whole).problems)
        return InvalidInput(self._unread[1])

    def _whole(self, folder: Folder) -> Folder:
        """A folder with what the server knows besides: keys it fetched, who is revoked, who is federated."""
        stores = self._parts.stores
        known = with_revoked(with_keys(folder, stores.key_sets), stores.revocations)
        return beside(known, stores.relations.text())

    def _build(self, folder: Folder) -> Live:
        parts, distrusted = self._parts, self._parts.stores.distrust.of
        with _uncollected():
            live = load(folder, self._schemas, parts.placer, parts.control, self._earlier, parts.living, distrusted)
        self._earlier = self._earlier.after(live)
        parts.rulings.know(live.ruling)  # before any proxy decides by it
        return live

    def _keep(self, live: Live) -> None:
        """Before a change takes effect it is on record, and where its instances are is known to the next start.

        One that cannot be put on record leaves nothing that the next start would take for what was in force.
        """
        try:
            self._keep_revision(live)
            self._parts.placer.keep(live.placement)
            self._record_change(live)
        except BaseException:
            self._take_back()
            raise
        self._parts.metrics.ruled(live.ruling.revision)
        self._parts.decide(live.ruling)

    def _record_change(self, live: Live) -> None:
        before = self.live.files
        changed = sorted(path for path in {*before, *live.files} if before.get(path) != live.files.get(path))
        detail: dict[str, Any] = {"files": changed}
        if live.ruling.shadow is not None:
            detail["shadow_revision"] = live.ruling.shadow.revision
        revision = live.ruling.revision
        self._parts.record(
            Entry(time=self._parts.clock(), kind="change", decision="allow", revision=revision, detail=detail)
        )

    def _take_back(self) -> None:
        """What is in force stays that; a disk that does not take it back either is tried again with the next change."""
        for undo in (self._parts.revisions.take_back, partial(self._parts.placer.take_back, self.live.placement)):
            try:
                undo()
            except StateError as error:
                _log.error("change.not_taken_back", error=str(error))

    def _keep_revision(self, live: Live) -> None:
        ruling = live.ruling
        self._parts.revisions.keep(ruling.revision, len(ruling.policy_set.policies), live.texts, ruling.schema.text)

    def _heard(self, live: Live | None, problems: tuple[Problem, ...]) -> None:
        """A change was taken, or refused: say so."""
        self._parts.metrics.change_refused(live is None)
        self._parts.metrics.reloaded("refused" if live is None else "taken")
        if live is None:
            _log.warning("change.refused", problems=[str(problem) for problem in problems])
            self._record_refusal(problems)
            return
        _log.info("change.taken", revision=live.ruling.revision, config=live.config)
        self._parts.taken(live)

    def _record_refusal(self, problems: tuple[Problem, ...]) -> None:
        faults = tuple(Fault(problem.code, str(problem)) for problem in problems)
        revision = self.live.ruling.revision
        entry = Entry(time=self._parts.clock(), kind="change", decision="deny", revision=revision, errors=faults)
        with suppress(JournalError):  # nothing took effect; the journal itself says that it misses something
            self._parts.record(entry)


def with_revoked(folder: Folder, revocations: Revocations) -> Folder:
    """A folder with the policies that deny what is revoked; they are no file of its own."""
    text = forbids(revocations.all())
    if not text:
        return folder
    texts = {**folder.texts, FILE: text}
    return replace(folder, texts=texts, digest=digest({FILE: text, "": folder.digest}))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Make many objects that stay, without looking again and again which of them go."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
