"""What an Envoy counts that nobody else says: looked for again and again, said when it is more.

Law: an Envoy does without in silence, so who watches it says so, whether or not anybody collects metrics.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from policyd.errors import EnvoyError
from proxy.envoy_admin import ask
from proxy.events import SidecarStatus

SECONDS: Final = 3.0  # for one Envoy's answer

Ask = Callable[[Path], Awaitable[int]]


def asking(pattern: str, count: Callable[[str], int]) -> Ask:
    """Ask an Envoy by its administration socket for what a regex finds, and count in its page; raises EnvoyError."""
    target = f"/stats/prometheus?usedonly&filter={quote(pattern)}"

    async def asked(socket: Path) -> int:
        status, body = await ask(socket, target, timeout=SECONDS)
        if status != 200:
            raise EnvoyError(f"Envoy answers {status} to `{target}`")
        return count(body.decode(errors="replace"))

    return asked


class Growing:
    """Watches one count of the Envoys of `sidecars`, `every` so many seconds; run `watch` in a task.

    `say` gets the instance, and how much it is.
    """

    def __init__(
        self, sidecars: Callable[[], Sequence[SidecarStatus]], every: float, ask: Ask, say: Callable[[str, int], None]
    ) -> None:
        self._every = every
        self._sidecars = sidecars
        self._ask = ask
        self._say = say
        self._known: dict[str, int] = {}

    async def watch(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Look, for ever."""
        while True:
            await sleep(self._every)
            await self.look()

    async def look(self) -> None:
        """Say of each Envoy what it counts, if that is more than at the last look."""
        before, self._known = self._known, {}
        for one in self._sidecars():
            if not one.pid:
                continue
            now = known = before.get(one.instance, 0)
            with suppress(EnvoyError):  # one that does not answer is told of elsewhere
                now = await self._ask(Path(one.admin_socket))
            if now > known:
                self._say(one.instance, now)
            self._known[one.instance] = now
