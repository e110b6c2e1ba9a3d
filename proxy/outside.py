"""What a deterministic core may not have: clocks, waiting, chance and speech, as one value that tests replace."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from proxy.events import Say


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def _chance() -> float:
    return random.uniform(-1.0, 1.0)  # noqa: S311 - spreads waits, guards nothing


@dataclass(frozen=True, slots=True)
class Outside:
    """`clock` is UTC wall time, `monotonic` and `sleep` are in seconds, `spread` gives -1 to 1."""

    say: Say
    clock: Callable[[], datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    spread: Callable[[], float] = _chance
