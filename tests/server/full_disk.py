"""A program that answers checks on a disk that becomes full and is made free again, and says what callers were told.

Arguments: a folder, `audit.onFull`, `audit.durability`, and what becomes full: `disk`, the file system that the folder
is on, or `file`, the size that a file may have. It prints JSON: status and decision id of each answer `before`, `while`
it was full, and `after`; how many `failures` were counted; what is `kept` and noted.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from policyd import envoy_api
from policyd.audit.journal import Durability, Journal
from policyd.audit.unsaid import OnFull
from policyd.audit.verify import verify
from policyd.authz.service import Authorizer
from policyd.offline.loaded import load_folder
from policyd.telemetry.logs import configure_logs
from policyd.telemetry.metrics import Metrics
from tests.audit.samples import WRITER, records
from tests.authz.checks import REVIEWS, check_of

BOOKINFO = Path(__file__).parents[2] / "examples" / "bookinfo"
LEFT = 24 << 10  # bytes that records still find room in
MOST = 2_000  # checks until it has to be full


class Room:
    """What is there, and is taken away."""

    def __init__(self, folder: Path, which: str) -> None:
        self._ballast = folder / "ballast"
        self._is_disk = which == "disk"

    def take(self) -> None:
        """Leave a little of it."""
        if not self._is_disk:
            resource.setrlimit(resource.RLIMIT_FSIZE, (LEFT, resource.RLIM_INFINITY))
            return
        with self._ballast.open("wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(b"\0" * 4096)
            file.truncate(file.tell() - LEFT)

    def give(self) -> None:
        """Give it back."""
        if self._is_disk:
            self._ballast.unlink()
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Counted:
    """Counts what the journal could not keep."""

    def __init__(self) -> None:
        self.failures = 0

    def journal_record(self, kind: str, count: int = 1) -> None:
        """Nothing is to be done."""

    def journal_failure(self) -> None:
        """Count."""
        self.failures += 1


def _main(folder: Path, on_full: OnFull, durability: Durability, which: str) -> None:
    configure_logs()
    ruling, counted = load_folder(BOOKINFO).live.ruling, Counted()
    clock = lambda: datetime.now(UTC)  # noqa: E731 - it is an argument, named
    journal = Journal(folder / "journal", WRITER, clock, durability=durability, on_full=on_full, observer=counted)
    authorizer = Authorizer(
        ruling=lambda: ruling, record=journal.keep, metrics=Metrics(), clock=clock, stopwatch=time.perf_counter
    )
    body, reply_of = check_of().SerializeToString(), envoy_api.message("envoy.service.auth.v3.CheckResponse").FromString

    def ask() -> tuple[int, str]:
        reply: Any = reply_of(authorizer.check(body, REVIEWS))
        decision_id: str = reply.dynamic_metadata.fields["decision_id"].string_value
        return int(reply.error_response.status.code) or 200, decision_id

    room = Room(folder, which)
    room.take()
    before = []
    while not counted.failures and len(before) < MOST:
        before.append(ask())
    during = [before.pop(), *(ask() for _ in range(5))]
    room.give()
    after = [ask() for _ in range(5)]
    journal.close()
    kept = records(journal.directory)
    said = {
        "before": before,
        "while": during,
        "after": after,
        "failures": counted.failures,
        "kept": [one.decision_id for one in kept if one.kind == "decision"],
        "notes": [one.detail for one in kept if one.kind == "operation"],
        "problems": [str(one) for one in verify(journal.directory).problems],
    }
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4])  # type: ignore[arg-type]
