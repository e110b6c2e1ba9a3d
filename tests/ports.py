"""Ports for tests that must know one before somebody listens there."""

from __future__ import annotations

import random
import socket
from typing import Final

# Any outgoing connection may take a port of the system's own range (32768 to 60999), and meshes take theirs from 20000.
FIRST: Final = 10_000
LAST: Final = 19_999


def free_port() -> int:
    """A port of the loopback that was free just now, and that nothing takes by chance."""
    while True:
        port = random.randint(FIRST, LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
