"""The sidecars of one agent: what is wanted is compared with what runs, and only the difference is touched.

Law: two Envoys of one instance never run at once, since they want the same ports. One that is declared proxyless has
none, and stands among them by its Proxyless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from policyd.envoy_api import EnvoyApi
from proxy.control import Control
from proxy.decided import Decided
from proxy.events import SidecarStatus
from proxy.identity import Bundle
from proxy.outside import Outside
from proxy.proxyless import Proxyless
from proxy.sidecar import Running, Settings, Sidecar


@dataclass(frozen=True, slots=True)
class Plan:
    """The instances to end, and what to begin after that."""

    end: tuple[str, ...]
    begin: tuple[Running, ...]


def plan(now: Mapping[str, Running], wanted: Iterable[Running]) -> Plan:
    """Compare what runs, by instance, with what is wanted; what differs in anything is ended and begun anew."""
    target = {running.spec.instance: running for running in wanted}
    end = tuple(name for name, running in sorted(now.items()) if target.get(name) != running)
    begin = tuple(running for name, running in sorted(target.items()) if now.get(name) != running)
    return Plan(end, begin)


class Fleet:
    """`apply` what is wanted as often as it changes, `end` once; `changed` is called when a status did.

    `decided` gives what becomes of an instance's own decisions.
    """

    def __init__(
        self, settings: Settings, control: Control, api: EnvoyApi, outside: Outside, changed: Callable[[], None],
        decided: Callable[[str], Decided],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._control = control
        self._api = api
        self._outside = outside
        self._changed = changed
        self._decided = decided
        self._sidecars: dict[str, Sidecar | Proxyless] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._level = settings.log_level
        self._trusted: tuple[Bundle, tuple[Bundle, ...], tuple[bytes, ...]] | None = None

    async def apply(self, wanted: Iterable[Running]) -> None:
        """End what is not wanted, then begin what is missing; returns before the new ones are ready."""
        runs = {name: sidecar.running for name, sidecar in self._sidecars.items()}
        todo = plan(runs, filter(self._may_run, wanted))
        await self._finish(todo.end)
        for running in todo.begin:
            name, sidecar = running.spec.instance, self._made(running)
            if self._trusted is not None:
                sidecar.trust(*self._trusted)
            if isinstance(sidecar, Sidecar):
                sidecar.speak(self._level)
            self._sidecars[name], self._tasks[name] = sidecar, asyncio.create_task(sidecar.run())
        self._changed()

    def trust(self, bundle: Bundle, federated: tuple[Bundle, ...] = (), crls: tuple[bytes, ...] = ()) -> None:
        """Give every sidecar, also those that come later, what its peers are verified by."""
        self._trusted = (bundle, federated, crls)
        for sidecar in self._sidecars.values():
            sidecar.trust(*self._trusted)

    def speak(self, level: str) -> None:
        """Have every Envoy, also those that come later, log from a level on; "": from the one they are started with."""
        self._level = level or self._settings.log_level
        for _, sidecar in self._with_envoy():
            sidecar.speak(self._level)

    def behind(self, sequence: int) -> tuple[str, ...]:
        """The instances whose Envoys have not confirmed the bundle of `sequence`."""
        return tuple(sorted(name for name, sidecar in self._sidecars.items() if not sidecar.confirmed(sequence)))

    def signers(self) -> frozenset[bytes]:
        """The SHA-256 of each certificate that signed what the sidecars show."""
        return frozenset(one for sidecar in self._sidecars.values() for one in sidecar.signers)

    def stop(self) -> None:
        """Let every sidecar drain and end; called again, end at once."""
        for sidecar in self._sidecars.values():
            sidecar.stop()

    async def end(self) -> None:
        """Wait until all sidecars have ended, after `stop`."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def status(self) -> list[SidecarStatus]:
        """Every sidecar's status, by instance."""
        return [sidecar.status() for _, sidecar in sorted(self._sidecars.items())]

    def deciding(self) -> dict[str, tuple[Decided, Path]]:
        """What each sidecar decides by itself, and where its Envoy is administered."""
        return {name: (one.decided, one.admin_socket) for name, one in self._with_envoy()}

    def admin(self, instance: str) -> Path | None:
        """The administration socket of an instance's Envoy; None where it does not run here."""
        sidecar = self._sidecars.get(instance)
        return sidecar.admin_socket if isinstance(sidecar, Sidecar) else None

    def _may_run(self, running: Running) -> bool:
        """Whether it may run here; where not, that is said."""
        if self._settings.proxyless and not running.spec.proxyless:
            reason = "it is declared with a sidecar, and this agent starts no Envoy"
            self._outside.say("sidecar.refused", instance=running.spec.instance, reason=reason)
            return False
        return True

    def _made(self, running: Running) -> Sidecar | Proxyless:
        shared = (running, self._settings, self._control, self._api, self._outside, self._changed)
        return Proxyless(*shared) if running.spec.proxyless else Sidecar(*shared, self._decided(running.spec.instance))

    def _with_envoy(self) -> Iterator[tuple[str, Sidecar]]:
        return ((name, one) for name, one in self._sidecars.items() if isinstance(one, Sidecar))

    async def _finish(self, names: Iterable[str]) -> None:
        ending = tuple(names)
        for name in ending:
            self._sidecars[name].stop()
        if ending:  # `wait`, so that being cancelled here does not cut their draining short
            await asyncio.wait([self._tasks[name] for name in ending])
        for name in ending:
            del self._sidecars[name], self._tasks[name]
