"""What a decision process says of decisions: of what could not be decided or kept a line, at `debug` one of each.

Law: the journal is the record, and a line leads to it by its ids: the decision's, the request's, the trace's. Headers
and claims are in none, and no error quotes what the operator masks. However many fail, there are so many lines a second
and no more; they say how many are left out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from policyd.audit.record import Entry
from policyd.audit.rules import make_unquoter
from policyd.config.audit import MaskSettings
from policyd.errors import JournalError
from policyd.rate import Rate, RateLimit

LINES: Final = Rate(per_second=1.0, burst=5)
_FACTS: Final = (
    "decision", "status", "decision_id", "request_id", "trace_id", "span_id", "principal", "action", "resource",
    "reasons", "revision", "proxy", "duration_us",
)  # fmt: skip

_log = structlog.get_logger("policyd.decisions")
_level = logging.getLogger("policyd.decisions")


class DecisionLog:
    """Keeps entries by `keep`, and says what there is to say, with `masks` on. Safe for threads; `stopwatch` gives
    seconds.
    """

    def __init__(
        self, keep: Callable[[Entry], object], stopwatch: Callable[[], float], masks: Sequence[MaskSettings] = ()
    ) -> None:
        self._keep = keep
        self._unquoted = make_unquoter(masks)
        self._limit = RateLimit(LINES, stopwatch, max_peers=1)
        self._lock = threading.Lock()
        self._unsaid = 0

    def __call__(self, entry: Entry) -> object:
        """Keep an entry; raises JournalError where it could not be."""
        try:
            kept = self._keep(entry)
        except JournalError as error:
            self._warn("decision.not_kept", entry, error.message)
            raise
        if entry.decision == "error":
            self._warn("decision.failed", entry, "; ".join(one.message for one in self._unquoted(entry).errors))
        elif _level.isEnabledFor(logging.DEBUG):
            _log.debug("decision.made", **_facts(entry))
        return kept

    def _warn(self, event: str, entry: Entry, why: str) -> None:
        with self._lock:
            if not self._limit.allow(""):
                self._unsaid += 1
                return
            unsaid, self._unsaid = self._unsaid, 0
        more = {"left_out": unsaid} if unsaid else {}
        _log.warning(event, why=why, **_facts(entry), **more)


def _facts(entry: Entry) -> dict[str, Any]:
    """What is known of a decision, without what is not."""
    return {name: value for name in _FACTS if (value := getattr(entry, name))}
