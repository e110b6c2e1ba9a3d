"""Packed lines come back byte for byte, whatever they hold."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.audit.block import Block, Start, pack, unpack
from policyd.audit.columns import (
    MAX_NUMBER,
    expand,
    format_time,
    pack_numbers,
    pack_steps,
    parse_time,
    squeeze,
    unpack_numbers,
    unpack_steps,
)
from policyd.audit.record import Entry, digest, encode, genesis, place
from policyd.errors import BrokenRecord
from tests.audit.samples import NOON, WRITER, an_entry

START = Start(WRITER, 1, genesis(WRITER))


def chained(entries: list[Entry]) -> list[bytes]:
    lines: list[bytes] = []
    prev = START.prev
    for seq, entry in enumerate(entries, 1):
        lines.append(encode(place(entry, WRITER, seq, prev)))
        prev = digest(lines[-1])
    return lines


def traffic(count: int) -> list[bytes]:
    """Bookinfo's requests, each with ids of its own and part of a trace."""
    dice = random.Random(1)
    now = NOON
    entries = []
    for _ in range(count):
        now += timedelta(microseconds=dice.randrange(-20, 700))
        book = dice.randrange(10)
        name, path = dice.choice(
            [("productpage", "/productpage"), ("details", f"/details/{book}"), ("reviews", f"/reviews/{book}")]
        )
        entries.append(
            an_entry(
                time=now,
                decision_id=f"{dice.getrandbits(128):032x}",
                resource=f'Service::"{name}.default"',
                context={"request": {"method": "GET", "host": name, "path": path}},
                request_id=str(UUID(int=dice.getrandbits(128))),
                trace_id=f"{dice.getrandbits(128):032x}",
                span_id=f"{dice.getrandbits(64):016x}",
                duration_us=round(dice.lognormvariate(5, 0.5)),
                cached=dice.random() < 0.9,
            )
        )
    return chained(entries)


UUIDS = ["01234567-89ab-cdef-0123-456789abcdef", "0123456789ab-cdef-0123-456789-abcdef"]
IDS = st.text(alphabet="0123456789abcdef-", max_size=40) | st.sampled_from(
    ["0" * 32, "1" * 16, *UUIDS, "%d", "\x01", "é"]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.builds(
            an_entry,
            time=st.datetimes(timezones=st.just(UTC)),
            decision_id=IDS,
            request_id=IDS,
            trace_id=IDS,
            span_id=IDS,
            duration_us=st.integers(0, 2**63 - 1),
            context=st.dictionaries(st.sampled_from(["a_id", "x_us", "port", "%s"]), IDS | st.integers(), max_size=3),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_lines_come_back_byte_for_byte(entries: list[Entry]) -> None:
    lines = chained(entries)
    packed, end = pack(lines, START)
    assert unpack(packed, START, len(lines)) == (lines, end)
    assert end == digest(lines[-1])


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"",
        b'{"time":"2026-11-23T12:00:00+05:30","kind":"decision"',
        b'{"time":"2026-11-23T12:00:00.000000Z","kind":"decision"',
        b'{"time":"2026-11-23T12:00:00Z","kind":"\x01\x02"',
        b'{"time":"2026-11-23T12:00:00Z","a":"\xff\xfe"',
        b'{"time":"2026-11-23T12:00:00Z"' + b',"a_id":"0123456789abcdef"' * 200,
    ],
)
def test_a_line_of_another_form_is_kept_as_it_is(line: bytes) -> None:
    tail = b',"writer":"%b","seq":1,"prev":"%b"}\n' % (WRITER.encode(), START.prev.encode())
    packed, _ = pack([line + tail], START)
    assert unpack(packed, START, 1)[0] == [line + tail]


def test_a_record_of_bookinfo_takes_at_most_80_bytes_where_all_its_ids_are_random() -> None:
    lines = traffic(4096)
    packed, _ = pack(lines, START)
    assert len(packed) / len(lines) <= 80


def test_a_line_that_does_not_follow_is_not_packed() -> None:
    lines = traffic(5)
    lines[3] = lines[3].replace(b'"allow"', b'"deny"')
    with pytest.raises(BrokenRecord) as caught:
        pack(lines, START)
    assert caught.value.message == "record 5 does not continue what stands before it: one of the two was changed"


def test_the_first_record_that_was_changed_in_a_packed_block_is_named() -> None:
    lines = traffic(50)
    block = msgspec.msgpack.decode(pack(lines, START)[0], type=Block)
    times = unpack_steps(block.times, 50)
    times[20] += 1
    changed = msgspec.structs.replace(block, times=pack_steps(times))
    with pytest.raises(BrokenRecord) as caught:
        unpack(msgspec.msgpack.encode(changed), START, 50)
    assert caught.value.message == "record 21 is not the one that was sealed"


def told(packed: bytes, count: int) -> list[bytes] | str:
    """The lines, or how it is said that they are not what was packed."""
    try:
        return unpack(packed, START, count)[0]
    except BrokenRecord as error:
        return error.message[: len("record")]


def test_whatever_is_done_to_a_packed_block_is_noticed_and_named() -> None:
    lines = traffic(40)
    packed, _ = pack(lines, START)
    dice = random.Random(5)
    for _ in range(300):
        at = dice.randrange(len(packed))
        changed = bytearray(packed)
        changed[at] ^= 1 << dice.randrange(8)
        # a bit of the compression may mean nothing
        assert told(bytes(changed), 40) in ("record", lines)
    for length in range(0, len(packed), 97):
        assert told(packed[:length], 40) == "record"
    assert told(packed, 40) == lines


def test_a_column_that_claims_too_much_is_refused_before_it_is_expanded() -> None:
    bomb = squeeze(b"\0" * (32 << 20))
    assert len(bomb) < 5000
    with pytest.raises(BrokenRecord, match="cannot be expanded"):
        expand(bomb, 1 << 20)


@given(st.lists(st.integers(0, MAX_NUMBER), max_size=50))
def test_numbers_come_back(numbers: list[int]) -> None:
    assert unpack_numbers(pack_numbers(numbers), len(numbers)) == numbers


@settings(deadline=None)
@given(st.lists(st.integers(-(2**60), 2**60), max_size=50))
def test_steps_come_back(values: list[int]) -> None:
    assert unpack_steps(pack_steps(values), len(values)) == values


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_come_back(time: datetime) -> None:
    text = msgspec.json.encode(time).strip(b'"')
    micros = parse_time(text)
    assert micros is not None
    assert format_time(micros) == text
    assert timedelta(microseconds=micros) == time - datetime(1970, 1, 1, tzinfo=UTC)
