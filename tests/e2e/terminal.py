"""A program on a real terminal: what a person sees, types and interrupts."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")


# leads a session whose terminal standard input is, so that Ctrl-C becomes SIGINT there; in a process of its own: to run
# Python between fork and exec, beside gRPC's threads, may abort it
OWN_TERMINAL = """\
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """Starts `command` in a session of its own, with a terminal that a thread reads."""

    def __init__(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", OWN_TERMINAL, *map(str, command)],
            cwd=cwd,
            env=env,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._raw = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                ready, _, _ = select.select([self._master], [], [], 0.2)
                chunk = os.read(self._master, 65536) if ready else None
            except OSError:
                return
            if chunk == b"":
                return
            if chunk:
                self._raw += chunk
            elif self.process.poll() is not None:
                return

    @property
    def text(self) -> str:
        """What was printed so far, without escape sequences."""
        return _ESCAPES.sub("", self._raw.decode("utf-8", "replace"))

    def wait_for(self, what: str, timeout: float = 60) -> str:
        """Wait until `what` was printed; returns the whole text."""
        wait_until(lambda: what in self.text or self.process.poll() is not None, timeout, lambda: self.text)
        assert what in self.text, self.text
        return self.text

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.write(self._master, b"\x03")

    def end(self, timeout: float = 30) -> int:
        """Wait for the end; returns the exit code."""
        code = self.process.wait(timeout)
        self._reader.join(2)
        return code

    def close(self) -> None:
        """End what still runs; only for when a test failed."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(5)
        self._reader.join(2)
        os.close(self._master)


def wait_until(condition: Callable[[], bool], timeout: float, say: Callable[[], str] = lambda: "") -> None:
    """Wait for `condition`, looking every 20 ms; fails with what `say` returns."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s\n{say()}"
        time.sleep(0.02)


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """They do nothing meanwhile."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def wait_until_none_runs(directory: Path, timeout: float = 30) -> None:
    """Wait until no process of `directory` is left: the end of one that was told to end shows a moment later."""
    wait_until(lambda: processes_of(directory) == [], timeout, lambda: "\n".join(processes_of(directory)))


def processes_of(directory: Path) -> list[str]:
    """The command lines of running processes that name `directory`, or run or write their output in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            places = [str((entry / link).readlink()) for link in ("cwd", "fd/1")]
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z" and any(str(directory) in one for one in (command, *places)):
            found.append(f"{entry.name} {command}")
    return found
