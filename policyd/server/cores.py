"""How the machine's cores are shared: as many decision processes as they allow, each on a core of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

MOST_BY_DEFAULT: Final = 4


def usable_cores() -> list[int]:
    """The cores that this process may use, ascending."""
    return sorted(os.sched_getaffinity(0))


def default_count(cores: int) -> int:
    """One process a core but the one that is left to the proxies, at least one, at most four."""
    return max(1, min(MOST_BY_DEFAULT, cores - 1))


def core_of(number: int, cores: Sequence[int]) -> int | None:
    """The core of the process `number`, from 1: a process that moves between cores takes a third longer for a decision.

    The last core first, and none where there is but one.
    """
    return cores[-1 - (number - 1) % len(cores)] if len(cores) > 1 else None
