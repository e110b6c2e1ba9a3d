"""Some consecutive lines of one writer, packed: what differs from line to line in columns, what repeats once.

Law: pure. Unpacking gives the same lines, byte for byte, or says from which record on it does not. Of a line are kept
its time, its ids and numbers, and which of the block's skeletons they stand in; its writer, its `seq` and its `prev`
follow from the place and the line before, so they are not kept. A line that has another form is kept as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import msgspec

from policyd.audit.columns import (
    expand,
    format_time,
    pack_hex,
    pack_numbers,
    pack_steps,
    parse_time,
    squeeze,
    unpack_hex,
    unpack_numbers,
    unpack_steps,
)
from policyd.errors import BrokenRecord

MAX_LINES: Final = 4096
MAX_BYTES: Final = 8 << 20  # of lines; a single one may be larger than what is left of it
_ROOM: Final = 16 << 20  # what a column may expand to
CHECK_BYTES: Final = 2  # of each line's hash: they tell which line of a block is the first that was changed

_START: Final = b'{"time":"'
# the beginning is a literal, which makes the search twenty times as fast as one for the whole form
_VALUE: Final = re.compile(rb'(_id":"|_us":|"port":)([0-9a-f-]+)')
_CONTROLS: Final = bytes(range(0x20))  # stand in no line of JSON
_PLACES: Final = re.compile(rb"([\x01-\x04])")
_HEX32, _UUID, _HEX16, _NUMBER = b"\1", b"\2", b"\3", b"\4"
_ID_PLACES: Final = {32: _HEX32, 36: _UUID, 16: _HEX16}
_ZERO, _DASH = b"0-"
_DIGITS: Final = 18


class Block(msgspec.Struct, frozen=True, array_like=True):
    """The columns; of `which`, 0 is an odd line, else the skeleton's number counted from 1."""

    skeletons: bytes
    which: bytes
    times: bytes
    hex32: bytes
    uuids: bytes
    hex16: bytes
    numbers: bytes
    odd: bytes
    checks: bytes


@dataclass(frozen=True, slots=True)
class Start:
    """Where a block begins: its writer, the `seq` of its first line and that line's `prev`."""

    writer: str
    seq: int
    prev: str


_decoder: Final = msgspec.msgpack.Decoder(Block)


def pack(lines: Sequence[bytes], start: Start) -> tuple[bytes, str]:
    """Pack whole lines, and the hash of the last one; raises BrokenRecord at one that does not follow."""
    columns = _Columns()
    writer, prev, checks = start.writer.encode(), start.prev.encode(), []
    for seq, line in enumerate(lines, start.seq):
        tail = b',"writer":"%b","seq":%d,"prev":"%b"}\n' % (writer, seq, prev)
        if not line.endswith(tail):
            raise BrokenRecord(f"record {seq} does not continue what stands before it: one of the two was changed")
        columns.add(line, len(tail))
        hashed = sha256(line)
        prev = hashed.hexdigest().encode()
        checks.append(hashed.digest()[:CHECK_BYTES])
    return msgspec.msgpack.encode(columns.packed(b"".join(checks))), prev.decode()


def unpack(data: bytes, start: Start, count: int) -> tuple[list[bytes], str]:
    """The `count` lines of a packed block, and the hash of the last one.

    Raises BrokenRecord, naming the first record that is not what was packed.
    """
    try:
        block = _decoder.decode(data)
        which = unpack_numbers(block.which, count)
        values = _Values(block, count)
    except (msgspec.MsgspecError, BrokenRecord) as error:
        raise BrokenRecord(f"records {start.seq} to {start.seq + count - 1} cannot be unpacked: {error}") from error
    if len(which) != count or len(block.checks) != count * CHECK_BYTES:
        raise BrokenRecord(f"records {start.seq} to {start.seq + count - 1} cannot be unpacked: some are missing")
    return _lines(start, which, values, block.checks)


def _lines(start: Start, which: list[int], values: _Values, checks: bytes) -> tuple[list[bytes], str]:
    lines: list[bytes] = []
    writer, prev, seq = start.writer.encode(), start.prev.encode(), start.seq
    for number in which:
        try:
            line = values.line(number, b',"writer":"%b","seq":%d,"prev":"%b"}\n' % (writer, seq, prev))
        except (StopIteration, IndexError, BrokenRecord) as error:
            raise BrokenRecord(f"record {seq} cannot be unpacked: a value of it is missing") from error
        hashed = sha256(line)
        at = len(lines) * CHECK_BYTES
        if hashed.digest()[:CHECK_BYTES] != checks[at : at + CHECK_BYTES]:
            raise BrokenRecord(f"record {seq} is not the one that was sealed")
        lines.append(line)
        prev = hashed.hexdigest().encode()
        seq += 1
    return lines, prev.decode()


class _Columns:
    """Takes lines apart."""

    def __init__(self) -> None:
        self._skeletons: dict[bytes, int] = {}
        self._which: list[int] = []
        self._times: list[int] = []
        self._ids: dict[bytes, list[bytes]] = {_HEX32: [], _UUID: [], _HEX16: []}
        self._numbers: list[int] = []
        self._odd: list[bytes] = []

    def add(self, line: bytes, tail: int) -> None:
        """Take one more line apart, whose last `tail` bytes follow from its place."""
        end = line.find(b'"', len(_START))
        time = parse_time(line[len(_START) : end]) if line.startswith(_START) else None
        body = line[end:-tail]
        if time is None or len(body.translate(None, _CONTROLS)) != len(body):
            self._which.append(0)
            self._odd.append(line[:-tail])
            return
        parts = _VALUE.split(body)
        for at in range(2, len(parts), 3):
            parts[at] = self._take(parts[at], is_number=parts[at - 1].endswith(b":"))
        self._times.append(time)
        self._which.append(self._skeletons.setdefault(b"".join(parts), len(self._skeletons) + 1))

    def packed(self, checks: bytes) -> Block:
        """The columns of what was added."""
        return Block(
            skeletons=squeeze(b"\n".join(self._skeletons)),
            which=pack_numbers(self._which),
            times=pack_steps(self._times),
            hex32=pack_hex(self._ids[_HEX32]),
            uuids=pack_hex(self._ids[_UUID]),
            hex16=pack_hex(self._ids[_HEX16]),
            numbers=pack_numbers(self._numbers),
            odd=squeeze(b"\n".join(self._odd)),
            checks=checks,
        )

    def _take(self, value: bytes, *, is_number: bool) -> bytes:
        """Put a value into its column, if it has the form of one; what stands in the skeleton in its place."""
        if is_number:
            if not value.isdigit() or len(value) > _DIGITS or (value[0] == _ZERO and len(value) > 1):
                return value
            self._numbers.append(int(value))
            return _NUMBER
        place = _ID_PLACES.get(len(value))
        if place is None or value.count(b"-") != (4 if place == _UUID else 0):
            return value
        if place == _UUID:
            if not value[8] == value[13] == value[18] == value[23] == _DASH:
                return value
            value = value.replace(b"-", b"")
        self._ids[place].append(value)
        return place


class _Values:
    """The columns of a block, given out again line by line."""

    def __init__(self, block: Block, count: int) -> None:
        skeletons = expand(block.skeletons, _ROOM).split(b"\n")
        self._formats = [(_format(one), _PLACES.findall(one)) for one in skeletons]
        self._times = iter(unpack_steps(block.times, count))
        self._odd = iter(expand(block.odd, _ROOM).split(b"\n"))
        uuids = unpack_hex(block.uuids, 32, _ROOM // 16)
        self._columns: dict[bytes, Iterator[object]] = {
            _HEX32: iter(unpack_hex(block.hex32, 32, _ROOM // 16)),
            _UUID: iter([b"%b-%b-%b-%b-%b" % (u[:8], u[8:12], u[12:16], u[16:20], u[20:]) for u in uuids]),
            _HEX16: iter(unpack_hex(block.hex16, 16, _ROOM // 8)),
            _NUMBER: iter(unpack_numbers(block.numbers, _ROOM // 8)),
        }

    def line(self, which: int, tail: bytes) -> bytes:
        """The next line, in the skeleton `which`; raises StopIteration or IndexError where there is none."""
        if not which:
            return next(self._odd) + tail
        form, places = self._formats[which - 1]
        columns = self._columns
        time = format_time(next(self._times))
        return form % (time, *[next(columns[place]) for place in places]) + tail


def _format(skeleton: bytes) -> bytes:
    """A skeleton for the `%` operator."""
    form = skeleton.replace(b"%", b"%%").replace(_NUMBER, b"%d")
    return _START + b"%b" + form.replace(_HEX32, b"%b").replace(_UUID, b"%b").replace(_HEX16, b"%b")
