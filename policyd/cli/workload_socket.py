"""Where the agent that `policyd up` runs for a folder serves the Workload API."""

from __future__ import annotations

import os
from pathlib import Path

from policyd.cli.plan import WORKLOAD_SOCKET
from policyd.errors import NotRunning
from policyd.instance import environment
from policyd.state_paths import runtime_directory

AGENT_FOLDER = "agent"  # in the runtime folder; see bring_up


def place(directory: Path) -> Path | None:
    """Return the socket, or None where none is served."""
    socket = runtime_directory(directory, environment(), os.getuid()) / AGENT_FOLDER / WORKLOAD_SOCKET
    return socket if socket.is_socket() else None


def required(directory: Path) -> Path:
    """Return the socket; raises NotRunning where none is served."""
    socket = place(directory)
    if socket is None:
        remedy = "start it with `policyd up`; an agent of another machine says where by `--workload-api`"
        raise NotRunning("no agent of this folder serves the Workload API", remedy=remedy)
    return socket
