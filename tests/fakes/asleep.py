"""A way to wait that counts who waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

from policyd.audit.group import Pause, Wake, sleep


class Asleep:
    """Waits by `pause`; `count` is how many wait now."""

    def __init__(self, pause: Pause = sleep) -> None:
        self.count = 0
        self._pause = pause
        self._mutex = threading.Lock()

    def __call__(self, begin: Callable[[Wake], None]) -> None:
        """Wait, counted from when it can be woken."""

        def counted(wake: Wake) -> None:
            begin(wake)
            self._add(1)

        self._pause(counted)
        self._add(-1)

    def _add(self, more: int) -> None:
        with self._mutex:
            self.count += more
