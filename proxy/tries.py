"""One instance's life as attempts: what stops one is said, and after a wait comes the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from policyd.errors import PolicydError
from proxy.backoff import backoff
from proxy.outside import Outside

FIRST_WAIT, MOST_WAIT = 0.5, 15.0  # between two attempts


async def until_stopped(
    attempt: Callable[[], Awaitable[None]], stopping: asyncio.Event, instance: str, outside: Outside
) -> None:
    """Attempt again and again until `stopping`, and say why one failed."""
    failures = 0
    while not stopping.is_set():
        try:
            await attempt()
        except (PolicydError, OSError, RuntimeError) as error:  # gRPC reports a port that it cannot bind so
            failures += 1
            wait = backoff(failures, outside.spread(), first=FIRST_WAIT, most=MOST_WAIT)
            outside.say("sidecar.failed", instance=instance, reason=str(error)[:500], again_in=round(wait, 2))
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await stopping.wait()


async def first_of(work: asyncio.Future[Any], *events: asyncio.Event) -> None:
    """Return when one of the events has come; raises what ends `work` before that."""
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait([*waits, work], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        for wait in waits:
            wait.cancel()
