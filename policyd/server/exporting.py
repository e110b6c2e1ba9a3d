"""The stream of the journal to a collector, as a thread of the server.

Law: the server's decisions never wait for it; what it has not delivered stays in the journal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING

from policyd.audit.stream import Health, Observer, Stream

if TYPE_CHECKING:
    from policyd.config.audit import ExportSettings


@contextmanager
def exporting(
    settings: ExportSettings | None,
    journal: Path,
    directory: Path,
    version: str,
    clock: Callable[[], datetime],
    observer: Observer,
) -> Iterator[Callable[[], Health]]:
    """Stream for the length of a block, if an export is set; gives how it is. Raises UsageError for its files."""
    if settings is None:
        yield Health
        return
    from policyd.audit.collector import Collector, read_headers

    headers = read_headers(directory / settings.headers_file) if settings.headers_file else {}
    authorities = directory / settings.ca_file if settings.ca_file else None
    collector = Collector(settings.otlp, headers, version, authorities)
    stop = threading.Event()
    stream = Stream(
        journal, settings.name, collector.send, clock=clock, random=SystemRandom(), stop=stop, observer=observer
    )
    thread = threading.Thread(target=stream.run, name="export", daemon=True)
    thread.start()
    try:
        yield lambda: stream.health
    finally:
        stop.set()
        thread.join(timeout=1.0)  # a request that is under way is not waited for: it is sent again at the next start
        collector.close()
