"""Entries that are alike but for their time and ids: encoded once, filled in for each.

Law: pure. What a stencil gives is, byte by byte, what encoding the whole entry gives; what was masked in the entry is
masked in all, and an id that could hold a secret takes the long way through the mask.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec.structs import replace

from policyd.audit.masking import PLAIN_IDS, mask
from policyd.audit.record import Entry, check_length, encode_entry

MICROSECOND: Final = timedelta(microseconds=1)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_ID: Final = b',"decision_id":"@"'  # the first such words: only words of ours stand before
_ENDS: Final = b',"request_id":"@"'  # the last such words: only words of ours stand behind


class Own(NamedTuple):
    """What is one entry's own; `time` is in microseconds since 1970, in UTC."""

    time: int
    decision_id: str = ""
    request_id: str = ""
    trace_id: str = ""
    span_id: str = ""

    @property
    def when(self) -> datetime:
        """The time."""
        return EPOCH + timedelta(microseconds=self.time)


class Stencil:
    """Of `entry`, whose own time and ids do not matter; raises JournalError for what has no line."""

    __slots__ = ("_behind", "_front", "_middle", "_whole", "entry")

    def __init__(self, entry: Entry) -> None:
        self.entry = replace(entry, time=EPOCH, decision_id="@", request_id="@", trace_id="", span_id="")
        body = encode_entry(self.entry)
        check_length(body)
        self._whole = bool(entry.detail) or entry.shadow is not None  # free words may stand behind the ids
        front, _, rest = body.partition(_ID)
        middle, _, behind = rest.rpartition(_ENDS)
        self._front = front[front.index(b",") :].decode()
        self._middle = middle.decode()
        self._behind = behind.decode()

    def entry_of(self, own: Own) -> Entry:
        """The entry, filled in."""
        _, decision_id, request_id, trace_id, span_id = own
        ids = {"decision_id": decision_id, "request_id": request_id, "trace_id": trace_id, "span_id": span_id}
        return replace(self.entry, time=own.when, **ids)

    def filled(self, own: Own) -> bytes:
        """Its JSON; raises JournalError for ids that have no line."""
        time, decision_id, request_id, trace_id, span_id = own
        if self._whole or not PLAIN_IDS(decision_id + request_id + trace_id + span_id):
            return encode_entry(mask(self.entry_of(own)))
        second, micros = divmod(time, 1_000_000)
        stamp = f"{_second(second)}.{micros:06}Z" if micros else f"{_second(second)}Z"
        id_ = f',"decision_id":"{decision_id}"' if decision_id else ""
        request = f',"request_id":"{request_id}"' if request_id else ""
        trace = f',"trace_id":"{trace_id}"' if trace_id else ""
        span = f',"span_id":"{span_id}"' if span_id else ""
        text = f'{{"time":"{stamp}"{self._front}{id_}{self._middle}{request}{trace}{span}{self._behind}'
        return text.encode()


@lru_cache(maxsize=64)
def _second(second: int) -> str:
    return (EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S")
