"""A record and its line."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.audit.record import (
    MAX_LINE_BYTES,
    Entry,
    Fault,
    Shadow,
    change_of,
    decode,
    digest,
    encode,
    encode_entry,
    genesis,
    line_of,
    place,
)
from policyd.errors import BrokenRecord, JournalError
from tests.audit.samples import NOON, WRITER, an_entry

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TIMES = st.datetimes(timezones=st.sampled_from([NOON.tzinfo, timezone(timedelta(hours=5, minutes=30))]))


def test_a_line_says_what_happened_and_leaves_out_what_did_not() -> None:
    record = place(an_entry(time=NOON.replace(microsecond=42)), WRITER, 7, "ab" * 32)
    assert encode(record) == (
        b'{"time":"2026-11-23T12:00:00.000042Z","kind":"decision","decision":"allow","status":200,'
        b'"decision_id":"0192f0c0a1b2c3d4",'
        b'"principal":"Workload::\\"spiffe://cluster.local/ns/default/sa/productpage\\"",'
        b'"action":"Action::\\"GET\\"","resource":"Service::\\"reviews.default\\"",'
        b'"reasons":["reviews-from-productpage"],'
        b'"context":{"request":{"method":"GET","path":"/reviews/0"}},'
        b'"revision":"5f2e","proxy":"reviews-v1","duration_us":412,'
        b'"writer":"serve-0a1b2c3d","seq":7,"prev":"' + b"ab" * 32 + b'"}\n'
    )


def test_both_answers_stand_in_one_line() -> None:
    shadow = Shadow(decision="deny", reasons=("no-writes",), errors=(Fault("odd", "overflow"),), revision="77aa")
    record = place(an_entry(shadow=shadow), WRITER, 7, "ab" * 32)
    assert (
        b'"shadow":{"decision":"deny","reasons":["no-writes"],"errors":[{"source":"odd","message":"overflow"}],'
        b'"revision":"77aa"}' in encode(record)
    )
    assert decode(encode(record)) == record


@pytest.mark.parametrize(
    ("enforced", "shadow", "change"),
    [
        ("allow", "allow", "agree"),
        ("deny", "deny", "agree"),
        ("allow", "deny", "would_deny"),
        ("deny", "allow", "would_allow"),
        ("allow", "error", "error"),
        ("deny", "error", "error"),
        ("allow", None, None),
    ],
)
def test_what_would_change(enforced: Any, shadow: Any, change: str | None) -> None:
    said = Shadow(decision=shadow) if shadow else None
    assert change_of(an_entry(decision=enforced, shadow=said)) == change


@pytest.mark.parametrize(
    ("faults", "change"), [(("shadow_skipped",), "skipped"), (("odd",), "error"), (("shadow_skipped", "odd"), "error")]
)
def test_what_was_not_asked_in_time_is_no_error(faults: tuple[str, ...], change: str) -> None:
    said = Shadow(decision="error", errors=tuple(Fault(source, "why") for source in faults))
    assert change_of(an_entry(shadow=said)) == change


@given(
    time=TIMES,
    context=st.dictionaries(st.text(), JSON, max_size=3),
    detail=st.dictionaries(st.text(), JSON, max_size=3),
    reasons=st.lists(st.text(), max_size=3).map(tuple),
    errors=st.lists(st.builds(Fault, st.text(), st.text()), max_size=2).map(tuple),
    seq=st.integers(1, 2**63 - 1),
)
def test_what_is_encoded_is_decoded(time: datetime, seq: int, **fields: Any) -> None:
    record = place(Entry(time=time, kind="change", **fields), WRITER, seq, genesis(WRITER))
    assert decode(encode(record)) == record
    assert encode(record).count(b"\n") == 1
    entry = Entry(time=time, kind="change", **fields)
    assert line_of(encode_entry(entry), WRITER, seq, genesis(WRITER)) == encode(record)


def test_fields_of_a_later_version_are_passed_over() -> None:
    record = place(an_entry(), WRITER, 1, genesis(WRITER))
    assert decode(encode(record).replace(b"{", b'{"later":1,', 1)) == record


def test_the_hash_is_that_of_the_line_with_its_newline() -> None:
    assert digest(b"{}\n") == sha256(b"{}\n").hexdigest()


def test_two_writers_begin_unlike() -> None:
    assert genesis("serve-1") != genesis("serve-2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": NOON.replace(tzinfo=None)}, "a record's time has a time zone, this one has none"),
        ({"context": {"a": object()}}, "a record that cannot be written as JSON"),
        ({"request_id": "\ud800"}, "a record that cannot be written as JSON"),
        ({"context": {"a": "x" * MAX_LINE_BYTES}}, f"a record has at most {MAX_LINE_BYTES} bytes, this one"),
    ],
)
def test_what_has_no_line_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(JournalError) as caught:
        encode(place(an_entry(**change), WRITER, 1, ""))
    assert str(caught.value).startswith(message)


GOOD = encode(place(an_entry(), WRITER, 1, ""))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"null\n",
        GOOD[:-20],
        GOOD + GOOD,
        GOOD.replace(b'"seq":1', b'"seq":"1"'),
        GOOD.replace(b'"seq":1,', b""),
        GOOD.replace(b'"kind":"decision"', b'"kind":"else"'),
        GOOD.replace(b"12:00:00Z", b"12:00:00"),
        GOOD.replace(b"reviews-v1", b"\xff\xfe"),
        b"[" * 100_000,
        b" " * (MAX_LINE_BYTES + 1),
    ],
)
def test_what_is_no_record_is_said_to_be_none(line: bytes) -> None:
    with pytest.raises(BrokenRecord):
        decode(line)
