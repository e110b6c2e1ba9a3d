"""The console beside `policyd serve`: started with it, its link printed, started again when it dies, ended with it.

Law: nothing of it outlives us, however we end; what keeps it from running is told and keeps the server from nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from policyd.cli.console import address_in, command, link
from policyd.errors import PolicydError
from policyd.state_paths import state_paths
from proxy import launch

GRACE_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 2.0


@contextmanager
def beside(directory: Path) -> Iterator[None]:
    """Run the console of a folder for the length of a block."""
    kept = _Kept(directory)
    kept.start()
    try:
        yield
    finally:
        kept.stop()


class _Kept(threading.Thread):
    """The console's process, kept running until `stop`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(name="console", daemon=True)
        self._directory = directory
        self._stopped = threading.Event()
        self._child: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Start it, and again when it ended."""
        while not self._stopped.is_set():
            self._run_once()
            self._stopped.wait(PAUSE_SECONDS)

    def stop(self) -> None:
        """End it, in order and else at once."""
        self._stopped.set()
        child = self._child
        if child is not None:
            child.terminate()
            try:
                child.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
        self.join(GRACE_SECONDS)

    def _run_once(self) -> None:
        # the kernel ends it with the thread that starts it, which ends with us
        words = [sys.executable, "-I", "-S", str(launch.__file__), str(os.getpid()), *command(self._directory)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as child:
            self._child = child
            if self._stopped.is_set():  # just now
                child.terminate()
            assert child.stdout is not None
            for line in child.stdout:
                if address_in(line):
                    self._tell()

    def _tell(self) -> None:
        with suppress(PolicydError, OSError):
            sys.stdout.write(f"console  {link(state_paths(self._directory))}\n")
            sys.stdout.flush()
