"""The names of a journal's files, and their order.

Law: a writer's records stand in segments named `<writer>-<seq of the first record>.jsonl` while they are written, and
`.sealed` once they are sealed, so that the order of names is the order of records and a gap shows in a listing. Where
both are there, sealing was interrupted after the sealed one was whole, and that one counts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from policyd.audit.form import check_format
from policyd.errors import JournalError

SUFFIX: Final = ".jsonl"
SEALED_SUFFIX: Final = ".sealed"
LOCK_SUFFIX: Final = ".lock"
TORN: Final = ".torn-"  # between a segment's name and the seq at which its end was cut off and kept aside
_SEQ_DIGITS: Final = 20
_WRITER: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_NAME: Final = re.compile(rf"(?P<writer>{_WRITER.pattern})-(?P<seq>[0-9]{{{_SEQ_DIGITS}}})\.(?:jsonl|sealed)")


class Segment(NamedTuple):
    """One file of a writer; sorts by writer, then in the order of its records."""

    writer: str
    first_seq: int
    path: Path

    @property
    def is_sealed(self) -> bool:
        """Whether the file is a sealed one, by its name."""
        return self.path.suffix == SEALED_SUFFIX

    @property
    def sealed(self) -> Segment:
        """The same segment as its sealed file."""
        return self._replace(path=self.path.with_suffix(SEALED_SUFFIX))

    @property
    def open(self) -> Segment:
        """The same segment as its open file."""
        return self._replace(path=self.path.with_suffix(SUFFIX))


def check_writer(writer: str) -> str:
    """Return `writer` if it can name segments, else raise JournalError."""
    if not _WRITER.fullmatch(writer):
        raise JournalError(f"`{writer}` is no name of a writer", remedy="use lower-case letters, digits and dashes")
    return writer


def segment_name(writer: str, first_seq: int) -> str:
    """The name of the segment of `writer` that begins with the record `first_seq`."""
    return f"{writer}-{first_seq:0{_SEQ_DIGITS}d}{SUFFIX}"


def parse_segment(path: Path) -> Segment | None:
    """What a file is by its name; None for a file that is no segment."""
    found = _NAME.fullmatch(path.name)
    return Segment(found["writer"], int(found["seq"]), path) if found else None


def list_segments(directory: Path) -> dict[str, list[Segment]]:
    """Every writer's segments in the order of their records; raises JournalError where there is no folder.

    Raises StateError for a journal of a newer form. Files of other names are nobody's records.
    """
    check_format(directory)
    try:
        found = sorted(filter(None, map(parse_segment, directory.iterdir())))
    except OSError as error:
        raise JournalError(f"`{directory}` cannot be listed: {error.strerror}") from error
    writers: dict[str, dict[int, Segment]] = {}
    for segment in found:  # `.jsonl` sorts before `.sealed`, which takes its place
        writers.setdefault(segment.writer, {})[segment.first_seq] = segment
    return {writer: list(segments.values()) for writer, segments in writers.items()}
