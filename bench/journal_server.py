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
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc

from bench.processes import ROOT
from policyd.audit.journal import Journal
from policyd.audit.record import Entry
from policyd.authz.service import MAX_CHECK_BYTES, Authorizer, add_to_server
from policyd.ca.server_certificate import ServerCertificate
from policyd.config.addresses import Address
from policyd.errors import JournalError
from policyd.offline.loaded import load_folder
from policyd.server.cores import core_of, usable_cores
from policyd.server.decider import SWITCH_SECONDS, make_turns
from policyd.server.silence import Silence, one_message
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


def main(folder: Path, port: int, durability: Any) -> None:
    """Serve until SIGTERM."""
    sys.setswitchinterval(SWITCH_SECONDS)
    core = core_of(1, usable_cores())
    if core is not None:
        os.sched_setaffinity(0, {core})
    ruling, counters = load_folder(ROOT / "examples" / "bookinfo").live.ruling, Counters(Slots(TABLE))
    gc.freeze()  # as a decision process does: what lives as long as the ruling is not looked through again
    clock = lambda: datetime.now(UTC)  # noqa: E731
    journal: Journal | None = None

    def keep_all(entries: Sequence[Entry]) -> list[JournalError | None]:
        return journal.keep_all(entries) if journal else [None] * len(entries)

    turns = make_turns(Silence(time.monotonic), lambda: True, keep_all)
    if durability != "none":
        place = folder / f"journal-{durability}"
        journal = Journal(place, "bench", clock, durability=durability, observer=counters)
    authorizer = Authorizer(
        ruling=lambda: ruling,
        record=turns.keep,
        metrics=counters,
        clock=clock,
        stopwatch=time.perf_counter,
    )
    options = [("grpc.max_receive_message_length", MAX_CHECK_BYTES)]
    server = grpc.server(turns, options=options)  # type: ignore[arg-type]  # it only submits
    turns.serve(server)
    add_to_server(authorizer, server, one_message)
    bind(server, Address("127.0.0.1", port), credentials(_Identity(folder), mutual=True))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server.start()
    stop.wait()
    server.stop(2).wait()
    turns.shutdown()
    if journal is not None:
        journal.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
