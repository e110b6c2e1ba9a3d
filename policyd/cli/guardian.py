"""Our end of the guard (guard.py): tell it which process groups to end should we be killed."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import Final

from policyd.cli import guard

END_SECONDS: Final = 5.0


class Guardian:
    """A running guard."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(guard.__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            text=True,
            bufsize=1,
            start_new_session=True,
        )

    def add(self, group: int) -> None:
        """End `group` if we are gone."""
        self._say(f"+{group}\n")

    def remove(self, group: int) -> None:
        """Forget `group`, which has ended."""
        self._say(f"-{group}\n")

    def close(self) -> None:
        """Let the guard end, and with it what is still listed."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it was killed; the kernel still ends our direct children
            self._process.stdin.write(line)
