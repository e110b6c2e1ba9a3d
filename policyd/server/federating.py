"""Keeps the bundles of other trust domains fresh while the server runs; agents are told of new ones.

Law: who answers badly, or not at all, is asked again at the next interval, and costs no more than its time.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

import structlog

from policyd._pb import authority_pb2 as pb
from policyd.config.authority import FederatedSettings
from policyd.errors import FederationError, JournalError, NotFound
from policyd.sources.bundle_fetch import fetch
from policyd.sources.federation import Federation, Kept
from policyd.svid import bundle as bundles
from policyd.svid.bundle import Bundle

Record = Callable[[str, Mapping[str, object]], object]

AT_ONCE: Final = 8
_log = structlog.get_logger("policyd.server")


class Federating:
    """Fetches what is due, and calls `changed` when bundles are others; it is the desk's Federation.

    `record` puts a bundle that was fetched on record: the operation, and what is told of it; `failing` hears of how
    many trust domains there is no bundle, or perhaps an old one.

    All but `fetch` happens in the loop's own thread.
    """

    def __init__(
        self,
        known: Federation,
        changed: Callable[[], object],
        record: Record,
        *,
        failing: Callable[[int], object] = lambda count: None,
        fetch: Callable[[FederatedSettings, Bundle | None], Awaitable[bytes]] = fetch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known = known
        self._changed = changed
        self._record = record
        self._failing = failing
        self._fetch = fetch
        self._clock = clock
        self._woken = asyncio.Event()

    def want(self, relations: Collection[FederatedSettings]) -> None:
        """These trust domains are known from now on, and no others."""
        if self._known.want(relations):
            self._changed()
        self._woken.set()

    async def run(self) -> None:
        """Fetch for ever."""
        while True:
            self._woken.clear()
            await asyncio.gather(*map(self._ask, self._known.due(self._clock())[:AT_ONCE]))
            self._count()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._known.pause(self._clock())):
                    await self._woken.wait()

    async def _ask(self, kept: Kept) -> None:
        name = kept.relation.trust_domain
        try:
            self._take(name, await self._fetch(kept.relation, kept.bundle), self._record, "bundle.fetch")
        except (FederationError, JournalError, NotFound) as error:
            self._known.missed(name, error.message, self._clock())
            _log.warning("bundle.not_fetched", trust_domain=name, error=error.message)

    def _take(self, trust_domain: str, document: bytes, record: Record, operation: str) -> None:
        """Whom agents trust changes only once that is on record."""

        def on_record(bundle: Bundle) -> None:
            record(operation, _told(bundle))

        if self._known.took(trust_domain, document, self._clock(), on_record):
            _log.info(operation, trust_domain=trust_domain)
            self._changed()

    def _count(self) -> None:
        self._failing(len(list(self._known.problems())))

    # ---- desk.Federation

    def all(self) -> Sequence[pb.Federated]:
        """What is at hand of each."""
        return [_shown(kept) for kept in self._known.all()]

    def brought(self, trust_domain: str, document: bytes, record: Record) -> pb.Federated:
        """Take a bundle brought by hand, once `record` is done; raises FederationError, NotFound for a stranger."""
        self._take(trust_domain, document, record, "bundle.import")
        self._count()
        return self._of(trust_domain)

    async def refreshed(self, trust_domain: str) -> pb.Federated:
        """Ask for one now; raises FederationError where there is nothing to ask, NotFound for a stranger."""
        self._known.hurry(trust_domain)
        await self._ask(self._known.named(trust_domain))
        self._count()
        return self._of(trust_domain)

    def _of(self, trust_domain: str) -> pb.Federated:
        return _shown(self._known.named(trust_domain))


def _told(bundle: Bundle) -> dict[str, object]:
    """What a record has of a bundle: enough to know later who was trusted."""
    return {
        "trust_domain": bundle.trust_domain,
        "sequence": bundle.sequence,
        "roots": [hashlib.sha256(root).hexdigest() for root in bundle.roots],
        "jwt_keys": [key.kid for key in bundle.jwt_keys],
    }


def _shown(kept: Kept) -> pb.Federated:
    relation, bundle = kept.relation, kept.bundle
    return pb.Federated(
        trust_domain=relation.trust_domain,
        bundle_endpoint=relation.bundle_endpoint or "",
        profile=relation.profile if relation.bundle_endpoint else "",
        endpoint_id=relation.endpoint_id or "",
        known=bundle is not None,
        sequence=bundle.sequence or 0 if bundle else 0,
        roots=len(bundle.roots) if bundle else 0,
        jwt_keys=len(bundle.jwt_keys) if bundle else 0,
        problem=kept.problem,
        document=bundles.write(bundle) if bundle else b"",
    )
