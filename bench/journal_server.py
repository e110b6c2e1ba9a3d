"""A decision process with nothing around it: Bookinfo's policies, mutual TLS, and a journal or none.

Arguments: a folder with `server.key`, `server.pem` and `roots.pem`, the port, and the journal's durability or `none`.
The journal is in the folder's `journal-<durability>`.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc

from bench.processes import ROOT
from policyd.audit.group import Waiting
from policyd.audit.journal import Journal
from policyd.authz.service import MAX_CHECK_BYTES, Authorizer, add_to_server
from policyd.ca.server_certificate import ServerCertificate
from policyd.config.addresses import Address
from policyd.offline.loaded import load_folder
from policyd.server.check_threads import CheckThreads
from policyd.server.decider import CHECK_THREADS, LINGER_SECONDS, MOST_THREADS, PAUSING_THREADS, SWITCH_SECONDS
from policyd.server.deciders import core_of
from policyd.server.pausing_threads import PausingThreads
from policyd.server.silence import Silence
from policyd.server.transport import bind, credentials
from policyd.telemetry.counters import TABLE, Counters
from policyd.telemetry.slots import Slots


class _Identity:
    def __init__(self, folder: Path) -> None:
        files = ((folder / name).read_bytes() for name in ("server.key", "server.pem", "roots.pem"))
        now = datetime.now(UTC)
        self._certificate = ServerCertificate(*files, not_after=now + timedelta(hours=1), renew_at=now)

    def current(self) -> ServerCertificate:
        return self._certificate


def _threads(durability: str, idle: Callable[[], None]) -> tuple[CheckThreads | PausingThreads, Waiting | None]:
    if durability != "fsync":
        return CheckThreads(CHECK_THREADS, MOST_THREADS), None
    threads = PausingThreads(PAUSING_THREADS, idle, MOST_THREADS)
    return threads, Waiting(threads.pause, LINGER_SECONDS)


def main(folder: Path, port: int, durability: Any) -> None:
    """Serve until SIGTERM."""
    sys.setswitchinterval(SWITCH_SECONDS)
    core = core_of(1, sorted(os.sched_getaffinity(0)))
    if core is not None:
        os.sched_setaffinity(0, {core})
    ruling, counters = load_folder(ROOT / "examples" / "bookinfo").live.ruling, Counters(Slots(TABLE))
    gc.freeze()  # as a decision process does: what lives as long as the ruling is not looked through again
    clock = lambda: datetime.now(UTC)  # noqa: E731
    journal: Journal | None = None
    threads, waiting = _threads(durability, lambda: journal.hurry() if journal else None)
    if durability != "none":
        place = folder / f"journal-{durability}"
        journal = Journal(place, "bench", clock, durability=durability, observer=counters, waiting=waiting)
    authorizer = Authorizer(
        ruling=lambda: ruling,
        record=journal.keep if journal else lambda entry: None,
        metrics=counters,
        clock=clock,
        stopwatch=time.perf_counter,
    )
    options = [("grpc.max_receive_message_length", MAX_CHECK_BYTES)]
    server = grpc.server(threads, options=options)  # type: ignore[arg-type]  # it only submits
    add_to_server(authorizer, server, Silence(time.monotonic).message)
    bind(server, Address("127.0.0.1", port), credentials(_Identity(folder), mutual=True))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server.start()
    stop.wait()
    server.stop(2).wait()
    threads.shutdown()
    if journal is not None:
        journal.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
