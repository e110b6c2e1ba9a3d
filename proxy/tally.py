"""What an Envoy counts of its own decisions against what it has told: the difference is a gap, and it is said.

Law: nothing is called missing that may still come: of what was counted at a look, what was under way then may be told
later, and all else has been told a while after, and a while after that no more of it; as long as more of it comes, as
where a disk is slow, none of it is missing, and the next look counts it again. What is told meanwhile and ended
after the look makes up for nothing, so that a gap is seen under load, too. A gap is said once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policyd.errors import EnvoyError
from proxy import envoy_admin
from proxy.decided import NOT_TOLD, SILENT, Decided
from proxy.outside import Outside

EVERY: Final = 2.0  # seconds between two looks
SETTLED: Final = 3.0  # seconds after which all that had ended has been told: many times what an Envoy waits
MAX_ROUNDS: Final = 5  # of waiting, as long as some of it still comes
STEP: Final = 0.1  # seconds by which a clock was set, and did not just go
LAST_ANSWER: Final = 0.5  # seconds in which an Envoy that is to end says what it has counted
_STATS: Final = "/stats?filter=^http\\.inbound\\.(rbac\\.(allowed|denied)|downstream_rq_active)$"
_LINE: Final = re.compile(r"http\.inbound\.(rbac\.allowed|rbac\.denied|downstream_rq_active): ([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Look:
    """What an Envoy counted: own decisions, and requests under way; `process` is which Envoy it was."""

    decided: int
    active: int
    process: int = 0

    def missing(self, told: int, said: int) -> int:
        """How many are missing of what was counted, where so many have been told since, and said to be missing."""
        return max(0, self.decided - self.active - told - said)


def parse(page: str, process: int = 0) -> Look:
    """Read Envoy's counters; one that is not there is 0."""
    found = {name: int(number) for name, number in _LINE.findall(page)}
    decided = found.get("rbac.allowed", 0) + found.get("rbac.denied", 0)
    return Look(decided, found.get("downstream_rq_active", 0), process)


async def last_count(decided: Decided, socket: Path) -> int | None:
    """How many decisions an Envoy that is to end has made; None where it does not say so soon."""
    look = await _ask(decided.process, socket, LAST_ANSWER)
    return None if look is None else look.decided


async def _ask(process: int, socket: Path, timeout: float = envoy_admin.TIMEOUT) -> Look | None:
    try:
        status, page = await envoy_admin.ask(socket, _STATS, timeout=timeout)
    except EnvoyError:
        return None
    return parse(page.decode("ascii", "replace"), process) if status == 200 else None


Place = tuple[Decided, Path]  # and the administration socket of its Envoy


class Tally:
    """Run `run`, endless, in a task; `places` are the instances that there are."""

    def __init__(self, places: Callable[[], Mapping[str, Place]], outside: Outside) -> None:
        self._places = places
        self._outside = outside
        self._turn = 0
        self._was = self._offset()

    async def run(self) -> None:
        """Compare, again and again."""
        while True:
            await self._outside.sleep(EVERY)
            await self.compare()

    async def compare(self) -> None:
        """Look at those that decide, and in turn at one of those that have told nothing."""
        places = self._places()
        looks = {name: await self._look(*places[name]) for name in self._due(places)}
        if not any(look is not None and look.decided for look in looks.values()):
            return
        seen = [(places[name][0], look) for name, look in looks.items() if look is not None]
        missing = before = [-1 for _ in seen]
        for _ in range(MAX_ROUNDS):
            before, offset = missing, self._offset()
            await self._outside.sleep(SETTLED)
            if abs(self._offset() - offset) > STEP or abs(offset - self._was) > STEP:
                self._was = self._offset()
                return  # nobody knows what was before
            missing = [look.missing(decided.before, decided.missed) for decided, look in seen]
            if missing == before or not any(missing):
                break
        for (decided, look), count, was in zip(seen, missing, before, strict=True):
            # else an Envoy of its own is compared, or it is told and not read yet, or comes still
            if count and count == was and look.process == decided.process and not decided.held:
                decided.miss(count, NOT_TOLD if decided.arrived else SILENT)

    def _offset(self) -> float:
        """Of the clock: another one than before where it was set."""
        return self._outside.clock().timestamp() - self._outside.monotonic()

    def _due(self, places: Mapping[str, Place]) -> Iterable[str]:
        telling = [name for name, (decided, _) in places.items() if decided.arrived]
        silent = [name for name in sorted(places) if name not in telling]
        if silent:
            self._turn = (self._turn + 1) % len(silent)
            telling.append(silent[self._turn])
        return telling

    async def _look(self, decided: Decided, socket: Path) -> Look | None:
        look = await _ask(decided.process, socket)
        if look is not None:
            decided.watch(round(self._outside.clock().timestamp() * 1_000_000))
        return look
