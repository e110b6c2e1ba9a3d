"""What this agent vouches for on its machine: which processes are which workload, and the identities that they use now.

Law: an identity is obtained when a process first wants it, kept fresh while one does, and forgotten some time after.
What is denied is nobody's at once; while policyd is away, what is held is good until it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

from policyd.errors import IssuanceDenied, PolicydError
from policyd.rate import Rate, RateLimit
from policyd.spiffe import SpiffeId
from proxy.assignment import Registered
from proxy.control import Control, Unreachable
from proxy.events import stamp
from proxy.identity import Bundle, Svid
from proxy.outside import Outside
from proxy.renew import keep_fresh, obtain
from proxy.tainted import Tainted, serials, signers

LINGER: Final = 600.0  # seconds for which an identity that nobody uses is kept fresh
MAX_HELD: Final = 512
MAX_TOKENS: Final = 4096
RATE: Final = Rate(per_second=5.0, burst=50)  # of orders, for each user of the machine

Selectors = frozenset[str]


@dataclass(slots=True)
class _Held:
    """One identity of the processes with the same selectors."""

    used: float
    svid: Svid | None = None
    error: PolicydError | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    again: float  # of the monotonic clock: then a new one is obtained


class Book:
    """`hear` what policyd says; `fitting`, `svid` and `token` for processes; `after` waits for a change of them.

    Before the agent is somebody it has no line to policyd; then `use` gives it one.
    """

    def __init__(self, outside: Outside) -> None:
        self._control: Control | None = None
        self._outside = outside
        self._registered: tuple[Registered, ...] | None = None
        self._held: dict[tuple[SpiffeId, Selectors], _Held] = {}
        self._tokens: dict[tuple[SpiffeId, Selectors, tuple[str, ...]], _Token] = {}
        self._limit = RateLimit(RATE, outside.monotonic)
        self._rung = asyncio.Event()
        self._tainted = Tainted()
        self.bundle: Bundle | None = None
        self.federated: tuple[Bundle, ...] = ()
        self.crls: tuple[bytes, ...] = ()  # lists of revoked certificates of its own trust domain, DER
        self.number = 0  # of changes

    def use(self, control: Control) -> None:
        """Obtain identities over this line from now on."""
        self._control = control

    def hear(
        self,
        registered: Iterable[Registered],
        bundle: Bundle,
        federated: Iterable[Bundle] = (),
        tainted: Iterable[bytes] = (),
        crls: Iterable[bytes] = (),
    ) -> None:
        """Take what policyd says now; those that are nobody any more lose what they hold."""
        self._registered = tuple(registered)
        self.federated = tuple(federated)
        self.crls = tuple(crls)
        self._tainted.hear(frozenset(tainted), serials(self.crls))
        self._trust(bundle)
        for spiffe_id, selectors in tuple(self._held):
            if not any(one.spiffe_id == spiffe_id for one in self.fitting(selectors)):
                self._forget((spiffe_id, selectors))
        self._tokens.clear()
        self._ring()

    def fitting(self, selectors: Selectors) -> tuple[Registered, ...]:
        """What a process with these selectors is, each identity once; raises Unreachable before policyd has said it."""
        if self._registered is None:
            raise Unreachable("the agent does not know yet who is who")
        found: dict[SpiffeId, Registered] = {}
        for one in self._registered:
            if one.selectors <= selectors:
                found.setdefault(one.spiffe_id, one)
        return tuple(found.values())

    def signers(self) -> frozenset[bytes]:
        """The SHA-256 of each certificate that signed what processes use."""
        return frozenset(one for held in self._held.values() if held.svid for one in signers(held.svid))

    def expiries(self) -> dict[str, datetime]:
        """When what processes use ends, by identity; where several hold one, the first end."""
        ends: dict[str, datetime] = {}
        for (spiffe_id, _), held in self._held.items():
            if held.svid is not None:
                known = ends.get(str(spiffe_id), held.svid.not_after)
                ends[str(spiffe_id)] = min(known, held.svid.not_after)
        return ends

    def wants_hashes(self) -> bool:
        """Whether the hash of a process's program can matter."""
        return any(name.startswith("unix:sha256:") for one in self._registered or () for name in one.selectors)

    async def svid(self, spiffe_id: SpiffeId, selectors: Selectors, uid: int) -> Svid:
        """An SVID that holds now; raises IssuanceDenied, or what keeps it from being obtained now."""
        held = self._of(spiffe_id, selectors, uid)
        await held.news.wait()
        held.used = self._outside.monotonic()
        if held.svid is not None and self._outside.clock() < held.svid.not_after:
            return held.svid
        raise held.error or Unreachable(f"the certificate of `{spiffe_id}` has ended, and no new one was obtained")

    async def token(self, spiffe_id: SpiffeId, selectors: Selectors, audiences: tuple[str, ...], uid: int) -> str:
        """A JWT-SVID; one that was obtained before serves until half of its life. Raises as `svid`."""
        key = (spiffe_id, selectors, tuple(sorted(set(audiences))))
        kept = self._tokens.get(key)
        if kept is not None and self._outside.monotonic() < kept.again:
            return kept.text
        self._admit(uid)
        text, ends = await self._line().sign_jwt(spiffe_id, key[2], sorted(selectors))
        left = (ends - self._outside.clock()).total_seconds()
        while len(self._tokens) >= MAX_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[key] = _Token(text, self._outside.monotonic() + left / 2)
        return text

    async def after(self, seen: int, seconds: float) -> None:
        """Wait until there were more than `seen` changes, or for so long."""
        rung = self._rung
        if self.number > seen:
            return
        try:
            async with asyncio.timeout(seconds):
                await rung.wait()
        except TimeoutError:
            return

    def sweep(self) -> None:
        """Forget what nobody has used for a while."""
        now = self._outside.monotonic()
        for key, held in tuple(self._held.items()):
            if now - held.used > LINGER:
                self._forget(key)

    async def close(self) -> None:
        """Keep nothing fresh any more."""
        tasks = [held.task for held in self._held.values() if held.task is not None]
        for key in tuple(self._held):
            self._forget(key)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _of(self, spiffe_id: SpiffeId, selectors: Selectors, uid: int) -> _Held:
        key = (spiffe_id, selectors)
        held = self._held.get(key)
        if held is None:
            self.sweep()
            self._admit(uid)
            if len(self._held) >= MAX_HELD:
                raise Unreachable(f"this agent keeps {MAX_HELD} identities fresh, and no more")
            held = self._held[key] = _Held(self._outside.monotonic())
            get = partial(self._obtain, key, held)
            deliver = partial(self._deliver, held)
            held.task = asyncio.create_task(keep_fresh(spiffe_id, None, get, deliver, self._outside, self._tainted))
        return held

    def _line(self) -> Control:
        if self._control is None:
            raise Unreachable("the agent is not joined yet")
        return self._control

    def _admit(self, uid: int) -> None:
        if not self._limit.allow(str(uid)):
            raise Unreachable("this user asks too often")

    async def _obtain(self, key: tuple[SpiffeId, Selectors], held: _Held) -> tuple[Svid, Bundle]:
        try:
            return await obtain(self._line(), key[0], self._outside.clock, sorted(key[1]))
        except PolicydError as error:
            held.error = error
            held.news.set()
            if isinstance(error, IssuanceDenied):
                held.svid = None
                self._forget(key)
                self._ring()
            raise

    def _deliver(self, held: _Held, svid: Svid, bundle: Bundle) -> None:
        held.svid, held.error = svid, None
        held.news.set()
        self._trust(bundle)
        self._ring()
        facts = {"serial": f"{svid.serial:032x}", "expires": stamp(svid.not_after)}
        self._outside.say("workload.identity", spiffe_id=str(svid.id), **facts)

    def _trust(self, bundle: Bundle) -> None:
        if self.bundle is None or bundle.sequence > self.bundle.sequence:
            self.bundle = bundle

    def _forget(self, key: tuple[SpiffeId, Selectors]) -> None:
        held = self._held.pop(key, None)
        if held is not None and held.task is not None:
            held.task.cancel()

    def _ring(self) -> None:
        self.number += 1
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()
