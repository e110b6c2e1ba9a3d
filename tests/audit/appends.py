"""A program that appends until it is killed, and says on standard output what it was told is kept.

Arguments: the journal's folder, its durability, and (optional) how many bytes a file may have (RLIMIT_FSIZE). Under
`fsync` many wait at once, in few threads, as in a decision process.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from policyd.audit.appender import Limits
from policyd.audit.group import Waiting
from policyd.audit.journal import Durability, Journal
from policyd.errors import JournalError
from policyd.server.pausing_threads import PausingThreads
from policyd.telemetry.logs import configure_logs
from tests.audit.samples import WRITER, an_entry


def _append(journal: Journal, thread: int) -> None:
    number = 0
    while True:
        number += 1
        try:
            record = journal.append(an_entry(request_id=f"{thread}-{number}"))
        except JournalError as error:
            os.write(1, f"refused: {error}\n".encode())
            return
        assert record is not None
        os.write(1, f"{record.seq} {record.request_id}\n".encode())


def _main(directory: Path, durability: Durability, most: int | None) -> None:
    if most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    clock = lambda: datetime.now(UTC)  # noqa: E731 - it is an argument, named
    limits = Limits(max_bytes=100_000 if most is None else 2 * most, ahead=8_192)
    configure_logs()
    if durability == "fsync":
        _append_in_few_threads(partial(Journal, directory, WRITER, clock, limits=limits, durability=durability))
        return
    journal = Journal(directory, WRITER, clock, limits=limits, durability=durability)
    threads = [threading.Thread(target=_append, args=(journal, thread)) for thread in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _append_in_few_threads(open_journal: Callable[..., Journal]) -> None:
    pool = PausingThreads(2)
    journal = open_journal(waiting=Waiting(pool.pause, 0.002))
    for caller in range(24):
        pool.submit(_append, journal, caller)
    pool.shutdown()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None)  # type: ignore[arg-type]
