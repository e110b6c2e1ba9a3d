"""Counting what is on record, in open segments and in sealed ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from policyd.audit.lines import open_lines
from policyd.audit.segments import list_segments
from policyd.errors import BrokenRecord


def lines(journal: Path) -> Iterator[bytes]:
    """All records of a journal's folder as they stand, without what their writers have made ready for others."""
    for segments in list_segments(journal).values():
        for segment in segments:
            with open_lines(segment, _raise) as found:
                yield from (one.raw for one in found.forward(0))


def decisions(journal: Path) -> int:
    """How many decisions a journal's folder holds."""
    return sum(b'"kind":"decision"' in one for one in lines(journal))


def _raise(error: BrokenRecord) -> None:
    raise error
