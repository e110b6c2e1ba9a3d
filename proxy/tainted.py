"""Authorities by which nothing is to be signed any more, and certificates that are revoked: what is held of either is
renewed.

Law: renewed, not dropped: what is held is used until its successor is there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Iterable

from cryptography import x509

from proxy.identity import Svid


class Tainted:
    """`hear` what policyd says, `holds` of an SVID, `changed` waits for the next word."""

    def __init__(self) -> None:
        self._digests: frozenset[bytes] = frozenset()
        self._serials: frozenset[int] = frozenset()
        self._heard = asyncio.Event()

    def hear(self, digests: Collection[bytes], serials: Collection[int] = ()) -> None:
        """The SHA-256 of each certificate that taints a chain, and the serial numbers of those that are revoked."""
        found = (frozenset(digests), frozenset(serials))
        if found != (self._digests, self._serials):
            self._digests, self._serials = found
            heard, self._heard = self._heard, asyncio.Event()
            heard.set()

    def holds(self, svid: Svid) -> bool:
        """Whether an SVID is revoked, or was signed by one of them."""
        return svid.serial in self._serials or not self._digests.isdisjoint(signers(svid))

    async def changed(self) -> None:
        """Return when policyd says something else than now."""
        await self._heard.wait()


def signers(svid: Svid) -> frozenset[bytes]:
    """The SHA-256 of each certificate above the leaf."""
    return frozenset(hashlib.sha256(one).digest() for one in svid.chain[1:])


def serials(crls: Iterable[bytes]) -> frozenset[int]:
    """The serial numbers in lists of revoked certificates (DER)."""
    return frozenset(one.serial_number for crl in crls for one in x509.load_der_x509_crl(crl))
