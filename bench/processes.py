"""Starting, measuring and ending the programs that benchmarks need, by their ids."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PROGRAM = str(Path(sys.executable).parent / "policyd")


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    """Look every 20 ms until `condition` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout:g} s")
        time.sleep(0.02)


@contextmanager
def bookinfo() -> Iterator[Path]:
    """A private copy of the sample's folder."""
    with tempfile.TemporaryDirectory(prefix="policyd-bench-") as name:
        directory = Path(name) / "bookinfo"
        shutil.copytree(ROOT / "examples" / "bookinfo", directory, ignore=shutil.ignore_patterns(".policyd"))
        yield directory


@contextmanager
def running(
    command: Sequence[str], log: Path, ready: Callable[[], bool] = lambda: True
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is up when `ready` holds, and ended by its id afterwards; its output goes to `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def up() -> bool:
        if process.poll() is not None:
            raise RuntimeError(
                f"{command[0]} ended with {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}"
            )
        return ready()

    try:
        wait_until(up, f"{command[0]} being ready")
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answer(directory: Path, *words: str) -> Any:
    """What a policyd command says with --json; None where it fails."""
    done = subprocess.run(
        [PROGRAM, *words, "--dir", str(directory), "--json"], check=False, capture_output=True, text=True
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


@contextmanager
def mesh(settings: str = "") -> Iterator[Path]:
    """Bookinfo, up and staying up, with its own policyd.yaml or another; yields its folder."""
    with bookinfo() as directory:
        if settings:
            (directory / "policyd.yaml").write_text(settings)
        subprocess.run([PROGRAM, "up", str(directory), "--detach"], check=True, stdout=subprocess.DEVNULL)
        try:
            yield directory
        finally:
            subprocess.run([PROGRAM, "down", "--dir", str(directory)], check=True, stdout=subprocess.DEVNULL)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, to the nanosecond, where /proc counts in hundredths of a second."""
    return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid gives for it


def waited_seconds(pid: int) -> float:
    """How long the threads that a process has now could have run so far and had no core: others had it."""
    found = 0
    for one in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has ended meanwhile
            found += int((one / "schedstat").read_text().split()[1])
    return found / 1e9


def memory(pid: int) -> dict[str, float]:
    """Resident and anonymous memory of a process, in MB."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("VmRSS", "RssAnon"):
            found[key] = int(value.split()[0]) / 1024
    return found


def processes(marker: str) -> dict[int, str]:
    """Running processes whose command line or working directory holds `marker`."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                place = str((entry / "cwd").readlink())
            except OSError:
                continue
            if marker in command or marker in place:
                found[int(entry.name)] = command
    return found
