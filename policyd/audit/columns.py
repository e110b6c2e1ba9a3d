"""Values of one kind as columns of bytes: times, numbers, identifiers.

Law: pure, and exact: what `pack_*` makes, `unpack_*` turns into the same values. A column is compressed where that
makes it smaller; what claims to be larger than its reader allows is refused before it is expanded.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate
from typing import Final

import zstandard

from policyd.errors import BrokenRecord

LEVEL: Final = 9
_RAW: Final = b"\0"
_ZSTD: Final = b"\1"
_WIDTH: Final = 8
_NATIVE: Final = sys.byteorder == "little"
_SECONDS: Final = len("2026-11-23T12:00:00")

MAX_NUMBER: Final = (1 << 62) - 1


def squeeze(data: bytes) -> bytes:
    """`data`, compressed if that is smaller, behind a byte that says which."""
    packed = zstandard.ZstdCompressor(level=LEVEL).compress(data)
    return _ZSTD + packed if len(packed) < len(data) else _RAW + data


def expand(column: bytes, limit: int) -> bytes:
    """What `squeeze` was given, at most `limit` bytes; raises BrokenRecord."""
    kind, data = column[:1], column[1:]
    if kind == _RAW and len(data) <= limit:
        return data
    try:
        if kind == _ZSTD and 0 <= zstandard.frame_content_size(data) <= limit:
            return zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError:
        pass
    raise BrokenRecord("a column cannot be expanded")


def pack_numbers(numbers: Sequence[int]) -> bytes:
    """Whole numbers from 0 to MAX_NUMBER, the bytes of one weight side by side: the high ones are mostly zero."""
    words = array("q", numbers)
    if not _NATIVE:
        words.byteswap()
    data = words.tobytes()
    return squeeze(b"".join(data[plane::_WIDTH] for plane in range(_WIDTH)))


def unpack_numbers(column: bytes, limit: int) -> list[int]:
    """What `pack_numbers` was given, at most `limit` numbers; raises BrokenRecord."""
    planes = expand(column, limit * _WIDTH)
    count, rest = divmod(len(planes), _WIDTH)
    if rest:
        raise BrokenRecord("a column of numbers is cut off")
    data = bytearray(len(planes))
    for plane in range(_WIDTH):
        data[plane::_WIDTH] = planes[plane * count : (plane + 1) * count]
    words = array("q", bytes(data))
    if not _NATIVE:
        words.byteswap()
    return words.tolist()


def pack_steps(values: Sequence[int]) -> bytes:
    """Values of which each is near the one before it, as after a clock: their differences."""
    steps = (now - before for now, before in zip(values, (0, *values), strict=False))
    return pack_numbers([step << 1 if step >= 0 else (-step << 1) - 1 for step in steps])


def unpack_steps(column: bytes, limit: int) -> list[int]:
    """What `pack_steps` was given, at most `limit` values; raises BrokenRecord."""
    return list(accumulate((n >> 1) if not n & 1 else -((n + 1) >> 1) for n in unpack_numbers(column, limit)))


def pack_hex(texts: Iterable[bytes]) -> bytes:
    """Lower-case hex digits, two a byte."""
    return squeeze(bytes.fromhex(b"".join(texts).decode("ascii")))


def unpack_hex(column: bytes, digits: int, limit: int) -> list[bytes]:
    """What `pack_hex` was given, at most `limit` texts of so many digits; raises BrokenRecord."""
    text = expand(column, limit * digits // 2).hex().encode("ascii")
    if len(text) % digits:
        raise BrokenRecord("a column of identifiers is cut off")
    return [text[start : start + digits] for start in range(0, len(text), digits)]


def parse_time(text: bytes) -> int | None:
    """Microseconds since the epoch, of a time as a record has it (UTC); None for one that is written otherwise."""
    fraction = text[_SECONDS:]
    if fraction == b"Z":
        micros = 0
    elif len(fraction) == 8 and fraction[:1] == b"." and fraction[7:] == b"Z" and fraction[1:7].isdigit():
        micros = int(fraction[1:7])
    else:
        return None
    second = _parse_second(text[:_SECONDS])
    if second is None or (not micros and fraction != b"Z"):
        return None
    return second * 1_000_000 + micros


def format_time(micros: int) -> bytes:
    """The text of microseconds since the epoch; raises BrokenRecord beyond the years that have one."""
    second, fraction = divmod(micros, 1_000_000)
    return b"%b.%06dZ" % (_format_second(second), fraction) if fraction else _format_second(second) + b"Z"


@lru_cache(maxsize=1024)
def _parse_second(text: bytes) -> int | None:
    try:
        second = int(datetime.strptime(text.decode("ascii"), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp())
        return second if _format_second(second) == text else None
    except (ValueError, BrokenRecord):
        return None


@lru_cache(maxsize=1024)
def _format_second(second: int) -> bytes:
    try:
        return datetime.fromtimestamp(second, UTC).isoformat()[:_SECONDS].encode("ascii")
    except (ValueError, OverflowError, OSError) as error:
        raise BrokenRecord("a time is out of range") from error
