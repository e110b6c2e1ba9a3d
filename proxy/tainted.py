"""Authorities by which nothing is to be signed any more, as policyd says: what shows one of them is renewed.

Law: renewed, not dropped: what is held is used until its successor is there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection

from proxy.identity import Svid


class Tainted:
    """`hear` what policyd says, `holds` of an SVID, `changed` waits for the next word."""

    def __init__(self) -> None:
        self._digests: frozenset[bytes] = frozenset()
        self._heard = asyncio.Event()

    def hear(self, digests: Collection[bytes]) -> None:
        """The SHA-256 of each certificate that taints a chain."""
        found = frozenset(digests)
        if found != self._digests:
            self._digests = found
            heard, self._heard = self._heard, asyncio.Event()
            heard.set()

    def holds(self, svid: Svid) -> bool:
        """Whether an SVID was signed by one of them."""
        return not self._digests.isdisjoint(signers(svid))

    async def changed(self) -> None:
        """Return when policyd says something else than now."""
        await self._heard.wait()


def signers(svid: Svid) -> frozenset[bytes]:
    """The SHA-256 of each certificate above the leaf."""
    return frozenset(hashlib.sha256(one).digest() for one in svid.chain[1:])
