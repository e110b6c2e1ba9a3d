"""Network namespaces: machines of their own for tests, with cables between them, which end with the test."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class Space:
    """A network with nothing but loopback; programs are started in it by `enter`."""

    def __init__(self) -> None:
        # it ends when its standard input does, with us
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        self._net = Path(f"/proc/{self._holder.pid}/ns/net")
        ours = Path("/proc/self/ns/net").readlink()
        deadline = time.monotonic() + 20
        while self._net.readlink() == ours:
            assert time.monotonic() < deadline, "no network of its own"
            time.sleep(0.005)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        """A process in it."""
        return self._holder.pid

    def enter(self, *command: str) -> list[str]:
        """A command that runs another one there."""
        return ["nsenter", f"--net={self._net}", "--", *command]

    def run(self, *command: str, told: str = "", code: int = 0) -> str:
        """Run a program there; what it prints."""
        done = subprocess.run(self.enter(*command), input=told, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def has(self, *words: str) -> None:
        """`ip` with these words."""
        self.run("ip", *words)

    def close(self) -> None:
        """End it; what still runs there keeps it until it ends."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(10)


@contextmanager
def spaces(number: int) -> Iterator[Sequence[Space]]:
    """So many networks."""
    found = [Space() for _ in range(number)]
    try:
        yield found
    finally:
        for one in found:
            one.close()


def cable(one: Space, name: str, addresses: Sequence[str], other: Space, its_name: str, its: Sequence[str]) -> None:
    """Lay a cable between two networks; each end has a name and addresses."""
    one.has("link", "add", name, "type", "veth", "peer", "name", its_name, "netns", str(other.pid))
    for space, end, own in ((one, name, addresses), (other, its_name, its)):
        for address in own:
            words = ["-6", "addr", "add", address, "dev", end, "nodad"] if ":" in address else None
            space.has(*(words or ["addr", "add", address, "dev", end]))
        space.has("link", "set", end, "up")
