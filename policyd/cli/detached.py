"""`policyd up --detach`: an `up` of its own session, that lets us go once everything is up.

Law: until then its output is ours, its failure our exit code, and our Ctrl-C ends it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from policyd.cli.own import command

READY: Final = b"up\n"
LOG: Final = "policyd.up.log"


def start(
    directory: Path, *, fresh: bool, timeout: float, as_json: bool, shadow: Path | None, console: bool = True
) -> int:
    """Start it and wait until it is up; returns the exit code."""
    said, says = os.pipe()
    words = ["up", str(directory), "--timeout", str(timeout), "--ready", str(says)]
    words += ["--fresh"] if fresh else []
    words += ["--json"] if as_json else []
    words += [] if console else ["--no-console"]
    words += ["--shadow", str(shadow)] if shadow else []
    with os.fdopen(said, "rb") as news:
        try:
            process = subprocess.Popen(
                [*command("policyd", "policyd.cli.main"), *words],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(says,),
            )
        finally:
            os.close(says)
        with _passed_on(process):
            if news.read() == READY:
                process.returncode = 0  # it is meant to live on
                return 0
            return process.wait()


@contextmanager
def _passed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """While we wait, what should end us ends it."""

    def end(number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def let_go(ready: int, log: Path) -> None:
    """In the detached `up`: print into `log` from now on, and tell who waits that everything is up."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    with suppress(OSError):  # who started us is gone
        os.write(ready, READY)
    os.close(ready)
