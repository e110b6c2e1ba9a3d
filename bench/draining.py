"""What callers see while the sidecars of a service are restarted one after another: requests sent, and failed.

Four callers ask without a pause worth speaking of, through their sidecar, a service of three instances beside two
agents, which asks another one through its own sidecar before it answers. Each agent is ended by SIGTERM and started
again, several times; nothing but the mesh's default retries is declared.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.processes import bookinfo
from bench.table import Row, row
from tests.e2e.conftest import RunningMesh
from tests.e2e.joining import Serve, restarted
from tests.e2e.rolling import with_agents_for_each

TIMES: Final = 5  # for each of the two agents


def run() -> Iterator[Row]:
    """The figures."""
    with tempfile.TemporaryDirectory() as work, bookinfo() as directory:
        serve = Serve(with_agents_for_each(directory))
        begin = time.monotonic()
        try:
            callers = restarted(RunningMesh(serve.directory), Path(work), TIMES)
        finally:
            serve.end()
        took = time.monotonic() - begin
    yield row("sidecars' agents restarted", 2 * TIMES, "times")
    yield row("in", took, "s")
    yield row("requests sent", callers.sent, "")
    yield row("requests failed", callers.failed, "", at_most=0)
