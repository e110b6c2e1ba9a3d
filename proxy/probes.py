"""The applications beside an agent's sidecars, asked again and again, and what is believed of them told to policyd.

Law: an application is asked one question at a time. policyd hears all that is believed, after every change and every
few seconds, so that silence means that the agent is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final

from policyd.errors import PolicydError
from proxy.asking import Ask
from proxy.health import Health, Probe, after
from proxy.outside import Outside

REPEAT: Final = 5.0  # seconds; policyd believes what it heard for three times as long
TOGETHER: Final = 0.1  # seconds between two reports at least
FIRST_WAIT: Final = 1.0  # after a report that did not arrive

Told = Mapping[str, tuple[bool, str]]


class Probes:
    """`apply` what is to be asked as often as that changes; run `report` in a task; `end` once."""

    def __init__(self, ask: Ask, tell: Callable[[Told], Awaitable[None]], outside: Outside) -> None:
        self._ask = ask
        self._tell = tell
        self._outside = outside
        self._healths: dict[str, Health] = {}
        self._asked: dict[str, tuple[Probe, asyncio.Task[None]]] = {}
        self._due = asyncio.Event()

    def apply(self, wanted: Iterable[Probe]) -> None:
        """Ask just these; of one that is asked otherwise from now on, what is believed stays."""
        target = {probe.instance: probe for probe in wanted}
        for name, (probe, task) in tuple(self._asked.items()):
            if target.get(name) != probe:
                task.cancel()
                del self._asked[name]
        for name, probe in target.items():
            if name not in self._asked:
                self._asked[name] = probe, asyncio.create_task(self._keep_asking(probe), name=f"probe {name}")
        self._healths = {name: self._healths.get(name, Health()) for name in target}
        self._due.set()

    def told(self) -> dict[str, tuple[bool, str]]:
        """What is believed: who answers, and of who does not, why."""
        return {
            name: (health.healthy, health.reason)
            for name, health in sorted(self._healths.items())
            if health.healthy is not None
        }

    async def report(self) -> None:
        """Tell policyd, for ever."""
        while True:
            self._due.clear()
            wait = REPEAT
            if told := self.told():
                try:
                    await self._tell(told)
                except PolicydError as error:
                    wait = FIRST_WAIT
                    self._outside.say("agent.report_failed", code=error.code, reason=str(error))
            await self._outside.sleep(TOGETHER)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._due.wait()

    async def end(self) -> None:
        """Ask nobody any more."""
        tasks = [task for _, task in self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_asking(self, probe: Probe) -> None:
        await self._outside.sleep(probe.initial_delay)
        while True:
            self._heard(probe, await self._ask(probe))
            await self._outside.sleep(probe.period)

    def _heard(self, probe: Probe, why: str) -> None:
        before = self._healths[probe.instance]
        now = self._healths[probe.instance] = after(before, why, probe)
        if now.healthy is not before.healthy:
            facts = {"reason": now.reason} if now.reason else {}
            self._outside.say(f"instance.{'healthy' if now.healthy else 'unhealthy'}", instance=probe.instance, **facts)
            self._due.set()
