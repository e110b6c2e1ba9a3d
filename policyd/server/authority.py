"""The authority of a running server, and what time demands of it: keys change, lists are kept fresh, ends are told.

Law: what cannot be done now is spoken of once and tried again; what is at hand goes on signing meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from policyd.ca import expiry
from policyd.ca.issuer import Issuer
from policyd.ca.jwt_store import JwtKeyStore
from policyd.ca.open import expiry_warnings
from policyd.ca.rotator import Rotator, Step
from policyd.ca.upstream import Upstream, read, read_chain
from policyd.config.authority import CaSettings
from policyd.errors import JournalError, PolicydError, StateError
from policyd.mesh.credentials import CredentialFile
from policyd.server.revoked_lists import RevokedLists
from policyd.telemetry.metrics import Metrics

_log = structlog.get_logger("policyd.server")


@dataclass(frozen=True, slots=True)
class Parts:
    """What an Authority is made of.

    `upstream` is where another authority's certificate for ours is now, `credentials` are the files that gateways show.
    `present` are the agents that are connected, `seen` is told of them; `announce` tells them that there is news, and
    `note` puts something on record.
    """

    issuer: Issuer
    rotator: Rotator
    jwt_keys: JwtKeyStore
    lists: RevokedLists
    metrics: Metrics
    settings: Callable[[], CaSettings]
    upstream: Callable[[], Upstream | None]
    passphrase: bytes | None
    credentials: Callable[[], Iterable[CredentialFile]]
    present: Callable[[], Collection[str]]
    seen: Callable[[Collection[str], int], object]
    announce: Callable[[], object]
    note: Callable[[str, Mapping[str, object]], object]
    clock: Callable[[], datetime]


class Authority:
    """`turn` from time to time; what is wrong is in `trouble` and `remarks`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._notices = expiry.Notices()
        self._rotation_trouble = ""

    async def turn(self) -> None:
        """Do what time demands."""
        await self._turn_token_keys()
        await self._turn_keys()
        await self.turn_lists()
        self._speak_of_ends()

    async def do(self, step: Step) -> None:
        """Take a step of a rotation that an operator asks for; raises PolicydError."""
        await asyncio.to_thread(self._parts.rotator.do, step)

    def changed(self) -> None:
        """The authority signs with other keys, or trusts others: tell everybody."""
        parts = self._parts
        parts.lists.turn(parts.rotator.held)
        parts.announce()
        _log.info("ca.authority", next=parts.rotator.held.next, sequence=parts.issuer.bundle.sequence)

    # ---- what is revoked

    def looks_at_serials(self) -> bool:
        """Whether proxies are to look at lists of revoked certificates."""
        return self._parts.settings().revoke_serials

    def published_lists(self) -> tuple[bytes, ...]:
        """The lists that proxies are to look at, in DER; none where they are not to."""
        return self._parts.lists.ders if self.looks_at_serials() else ()

    async def turn_lists(self) -> None:
        """Lists of revoked certificates are made while somebody looks at them, and kept fresh."""
        parts = self._parts
        if self.looks_at_serials() and await asyncio.to_thread(parts.lists.turn, parts.rotator.held):
            parts.announce()

    # ---- what is known

    def elements(self) -> tuple[expiry.Element, ...]:
        """All of it that can end."""
        return expiry.elements(self._parts.rotator.held, self._parts.jwt_keys.keys, self._parts.clock())

    def trouble(self) -> str:
        """Why it could not let a certificate live its life out; "" where it could."""
        life = timedelta(seconds=self._parts.settings().ttl)
        return expiry.trouble(self._parts.rotator.held, self._parts.clock(), life)

    def remarks(self) -> Iterator[str]:
        """What works and deserves a look."""
        yield from expiry_warnings(self._parts.issuer.authority, self._parts.clock())
        if self._rotation_trouble:
            yield self._rotation_trouble
        if self._parts.lists.trouble and self.looks_at_serials():
            yield self._parts.lists.trouble

    # ---- what time demands

    async def _turn_token_keys(self) -> None:
        parts = self._parts
        try:
            if await asyncio.to_thread(parts.jwt_keys.turn, parts.rotator.behind()):
                parts.announce()
                _log.info("ca.jwt_keys", kids=[key.kid for key in parts.jwt_keys.keys.public])
        except StateError as error:  # the keys at hand go on signing
            _log.error("ca.jwt_keys_not_turned", error=str(error))

    async def _turn_keys(self) -> None:
        """The next key of certificates is made and used; who is there to be waited for is known."""
        parts = self._parts
        try:
            await asyncio.to_thread(parts.seen, parts.present(), int(parts.clock().timestamp()))
            step, trouble = await asyncio.to_thread(parts.rotator.turn)
            await asyncio.to_thread(self._adopt)
        except PolicydError as error:
            step, trouble = "turn", str(error)
        if trouble and trouble not in self._rotation_trouble:
            _log.error("ca.not_rotated", step=step, error=trouble)
        self._rotation_trouble = f"the authority's next key is not in use: {trouble}" if trouble else ""

    def _adopt(self) -> None:
        """Take in what another authority laid down for us since; raises PolicydError."""
        rotator, upstream = self._parts.rotator, self._parts.upstream()
        if upstream is None or rotator.knows(read_chain(upstream)[0]):
            return
        if rotator.adopt(read(upstream, self._parts.passphrase)):
            _log.info("ca.upstream", chain=str(upstream.chain))
            if not rotator.waiting():  # there is no new root for which somebody had to be waited
                rotator.turn()

    def _speak_of_ends(self) -> None:
        """What can end is shown in the metrics, and on record as its life passes."""
        found, parts = self.elements(), self._parts
        parts.metrics.ca_expiry({one.name: one.ends.timestamp() for one in found})
        files = parts.credentials()
        parts.metrics.credential_expiry({one.path: one.ends.timestamp() for one in files if one.ends is not None})
        for one, share in self._notices.news(found, parts.clock()):
            detail = {"element": one.name, "id": one.id, "ends": f"{one.ends:%FT%TZ}", "passed": share}
            _log.warning("ca.ends", **detail)
            try:
                parts.note("ca.expiry", detail)
            except JournalError as error:  # the log has said it
                _log.error("ca.ends_not_recorded", error=str(error))
