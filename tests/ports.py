"""Ports for tests that must know one before somebody listens there."""

from __future__ import annotations

import os
import random
import socket
from typing import Final

# Any outgoing connection may take a port of the system's own range (32768 to 60999), and meshes take theirs from 20000.
OURS: Final = range(10_000, 20_000)
SPARE: Final = 2
PICKED: Final = range(20_000, 32_768)
MOST_GIVEN: Final = 1_000  # who asks for two before anybody listens gets two

_given: set[int] = set()


def share_of(ports: range, worker: int, workers: int) -> range:
    """The part that one of several processes which run tests at the same time has for itself."""
    shares = workers + SPARE  # who crashed is followed by one of a number of its own
    size = len(ports) // shares
    first = worker % shares * size
    return ports[first : first + size]


def worker_and_count() -> tuple[int, int]:
    """Which of how many such processes this is."""
    name = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return int(name.removeprefix("gw")), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def keep_apart() -> None:
    """Have programs that are started from here pick ports that those of other processes do not."""
    ports = share_of(PICKED, *worker_and_count())
    os.environ["POLICYD_PORTS"] = f"{ports[0]}-{ports[-1]}"


def free_port() -> int:
    """A port of the loopback that was free just now, that nothing takes by chance, and that was not given before."""
    if len(_given) > MOST_GIVEN:
        _given.clear()
    left = [port for port in share_of(OURS, *worker_and_count()) if port not in _given]
    random.shuffle(left)
    for port in left:
        _given.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError("no port is free")
