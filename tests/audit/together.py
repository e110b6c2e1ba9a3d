"""A program that keeps entries by the turn until it is killed, and says on standard output which it was told are kept.

Arguments: the journal's folder, its durability, and what tells the turns of this run from those of others.
"""

from __future__ import annotations

import os
import random
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from policyd.audit.appender import Limits
from policyd.audit.journal import Durability, Journal
from policyd.telemetry.logs import configure_logs
from tests.audit.samples import WRITER, an_entry


def _main(directory: Path, durability: Durability, run: str) -> None:
    configure_logs()
    dice = random.Random(run)
    limits = Limits(max_bytes=100_000, ahead=8_192)
    journal = Journal(directory, WRITER, lambda: datetime.now(UTC), limits=limits, durability=durability)
    for turn in count():
        entries = [an_entry(request_id=f"{run}-{turn}-{number}") for number in range(dice.randrange(1, 40))]
        outcomes = journal.keep_all(entries)
        told = [one.request_id for one, outcome in zip(entries, outcomes, strict=True) if outcome is None]
        os.write(1, "".join(f"{name}\n" for name in told).encode())


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])  # type: ignore[arg-type]
