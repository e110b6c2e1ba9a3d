"""Keep an SVID fresh: obtain, hand over, wait for the moment, again; a failure never takes the one that is held.

Law: while policyd is away the held SVID goes on being used, and the next attempt comes after a bounded wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from policyd.errors import PolicydError
from policyd.spiffe import SpiffeId
from proxy.assignment import Spec
from proxy.backoff import backoff
from proxy.control import Control
from proxy.events import stamp
from proxy.identity import Bundle, Svid, check_svid, make_key, renewal, request
from proxy.outside import Outside
from proxy.tainted import Tainted

FIRST_WAIT = 0.25
MOST_WAIT = 15.0
TAINT_SPREAD = 2.0  # seconds within which what is tainted is renewed
LONGEST_SLEEP = 30.0  # the wall clock may jump while a laptop sleeps; look again at least this often

Obtain = Callable[[], Awaitable[tuple[Svid, Bundle]]]
Deliver = Callable[[Svid, Bundle], None]


async def obtain(
    control: Control, spiffe_id: SpiffeId, clock: Callable[[], datetime], selectors: Sequence[str] = ()
) -> tuple[Svid, Bundle]:
    """Make a new key, have it certified for `spiffe_id` and check the answer; raises PolicydError.

    `selectors` are those of the process that it is for, where it is for one.
    """
    key = make_key()
    chain, bundle = await control.sign(spiffe_id, request(key), selectors)
    return check_svid(key, spiffe_id, chain, bundle, clock()), bundle


async def keep_fresh(
    spiffe_id: SpiffeId, held: Svid | None, get: Obtain, deliver: Deliver, outside: Outside, tainted: Tainted
) -> None:
    """Run for ever: deliver a first SVID where none is `held`, then a new one each time that it is due, or tainted."""
    since = held.not_before if held is not None else outside.clock()  # when one that is held was issued is not kept
    while True:
        if held is not None:
            await _until(renewal(held, since, outside.clock(), outside.spread()), held, tainted, outside)
        held = await _persist(spiffe_id, held, get, deliver, outside)
        since = outside.clock()


async def _persist(spiffe_id: SpiffeId, held: Svid | None, get: Obtain, deliver: Deliver, outside: Outside) -> Svid:
    failures = 0
    while True:
        try:
            svid, bundle = await get()
        except PolicydError as error:
            failures += 1
            wait = backoff(failures, outside.spread(), first=FIRST_WAIT, most=MOST_WAIT)
            _say_failure(spiffe_id, held, error, wait, outside)
            await outside.sleep(wait)
        else:
            deliver(svid, bundle)
            return svid


def _say_failure(spiffe_id: SpiffeId, held: Svid | None, error: PolicydError, wait: float, outside: Outside) -> None:
    facts = {"code": error.code, "reason": str(error), "again_in": round(wait, 1)}
    if held is not None:
        facts["expires"] = stamp(held.not_after)
        facts["expired"] = outside.clock() >= held.not_after
    outside.say("identity.failed", spiffe_id=str(spiffe_id), **facts)


def say_delivered(spec: Spec, svid: Svid, outside: Outside, *, first: bool) -> None:
    """Say that an instance has an SVID: its first one here, or a newer one."""
    outside.say(
        "sidecar.identity" if first else "sidecar.renewed", instance=spec.instance,
        spiffe_id=str(spec.spiffe_id), serial=f"{svid.serial:032x}", expires=stamp(svid.not_after),
    )  # fmt: skip


async def _until(moment: datetime, held: Svid, tainted: Tainted, outside: Outside) -> None:
    """Return at `moment`, or soon after what is held is tainted, not all at once with others."""
    while (left := (moment - outside.clock()).total_seconds()) > 0:
        if tainted.holds(held):
            await outside.sleep(min(left, TAINT_SPREAD * (1 + outside.spread()) / 2))
            return
        sleeping = asyncio.ensure_future(outside.sleep(min(left, LONGEST_SLEEP)))
        hearing = asyncio.ensure_future(tainted.changed())
        try:
            await asyncio.wait((sleeping, hearing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            hearing.cancel()
