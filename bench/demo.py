"""How long a newcomer waits: the first `make demo` on a fresh clone, and the next start."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from bench.processes import PROGRAM, ROOT, bookinfo
from bench.table import Row, row

WARM_STARTS = 3


def _seconds(command: list[str], cwd: Path) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, check=False, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return time.perf_counter() - start


def _fresh() -> float:
    """A clone of what is committed, in an empty home: nothing is left from earlier runs but the package cache."""
    with tempfile.TemporaryDirectory(prefix="policyd-bench-") as name:
        clone = Path(name) / "policyd"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        os.environ["XDG_CACHE_HOME"] = str(Path(name) / "cache")
        os.environ.setdefault("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip"))
        try:
            return _seconds(["make", "demo"], clone)
        finally:
            del os.environ["XDG_CACHE_HOME"]


def run() -> list[Row]:
    """Measure both."""
    with bookinfo() as directory:
        warm = [_seconds([PROGRAM, "up", str(directory), "--check"], directory) for _ in range(WARM_STARTS + 1)][1:]
    return [
        row("warm `policyd up --check`, slowest of three", max(warm), "s", at_most=15),
        row("fresh `make demo`, package cache warm", _fresh(), "s", at_most=90),
    ]
