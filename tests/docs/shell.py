"""One bash that takes a page's steps, as a reader's terminal would."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

_STEP = """failed=0; trap 'failed=$?' ERR
. {script} < /dev/null
code=$?; trap - ERR
printf '\\n%s %s\\n' {mark} "$((code ? code : failed))"
"""


class Shell:
    """Runs scripts one after another in `cwd`; what one sets, the next one sees."""

    def __init__(self, cwd: Path, scripts: Path, env: Mapping[str, str]) -> None:
        self._scripts, self._count = scripts, 0
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, script: str, timeout: float = 90) -> tuple[int, str]:
        """Give the exit code, of the first command that failed, and all that was printed."""
        self._count += 1
        file = self._scripts / f"step-{self._count}.sh"
        file.write_text(script)
        mark = f"end-of-step-{self._count}"
        assert self._bash.stdin
        self._bash.stdin.write(_STEP.format(script=file, mark=mark).encode())
        self._bash.stdin.flush()
        printed, _, code = self._read(f"\n{mark} ", timeout).rpartition(f"\n{mark} ")
        return int(code), printed

    def _read(self, mark: str, timeout: float) -> str:
        assert self._bash.stdout
        deadline, raw = time.monotonic() + timeout, b""
        while not (mark.encode() in raw and raw.endswith(b"\n")):
            ready, _, _ = select.select([self._bash.stdout], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(self._bash.stdout.fileno(), 65536) if ready else b""
            assert chunk, f"no end within {timeout} s, or the shell ended:\n{raw.decode(errors='replace')}"
            raw += chunk
        return raw.decode(errors="replace")

    def close(self) -> None:
        """End the shell and what it left running in the background."""
        assert self._bash.stdin
        assert self._bash.stdout
        self._bash.stdin.close()
        try:
            self._bash.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._bash.pid, signal.SIGTERM)
            self._bash.wait(10)
        self._bash.stdout.close()
