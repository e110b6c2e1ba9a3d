"""One record of the journal: its fields, its line, and the chain that ties each line to the one before.

Law: a record is a value and a line is its only form. `prev` is the SHA-256 of the previous line's bytes,
its newline included, so that `sed -n 5p FILE | sha256sum` gives the `prev` of line 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec.structs import asdict

from policyd.errors import BrokenRecord, JournalError, ShadowSkipped

Kind = Literal["decision", "issuance", "change", "operation"]
Outcome = Literal["allow", "deny", "error"]
Change = Literal["agree", "would_deny", "would_allow", "skipped", "error"]
DecidedBy = Literal["", "proxy"]
Time = Annotated[datetime, msgspec.Meta(tz=True)]

FIRST_SEQ: Final = 1
MAX_LINE_BYTES: Final = 1 << 20  # Envoy's headers end at 60 KiB, JSON escapes make at most six bytes of one

PLACE_BYTES: Final = 4_096  # of a line: its place in the journal, and what a stencil fills in


class Fault(msgspec.Struct, frozen=True):
    """What failed: `source` is the id of the policy, or the `code` of an error of policyd.errors."""

    source: str
    message: str


class Shadow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the shadow policies, under the `revision` of theirs, would have decided; it had no effect.

    `errors` are those of its policies, or why there is no decision. Of very many `reasons` and `errors` some are
    `omitted`. `duration_us` is what it took in addition to the record's own.
    """

    decision: Outcome
    reasons: tuple[str, ...] = ()
    errors: tuple[Fault, ...] = ()
    omitted: int = 0
    revision: str = ""
    cached: bool = False
    duration_us: int = 0


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a caller hands to the journal. A field at its default is left out of the line.

    `time` is aware, in UTC, and is written as RFC 3339 with microseconds. `principal`, `action` and `resource`
    are as Cedar writes them (`Workload::"spiffe://…"`, the text of a Uid), "" where there is none. `context` is
    what the decision read, in Cedar's JSON form, so that it can be replayed; the tags of `request.headers`
    stand there as a plain mapping of names to values, the claims of `user` as lists by name in its `claims`.
    `masked` names, as paths into `context`, what was taken out. `status` is what the caller got: 200, 400, 401,
    403 or 503 (0: nobody waits for one). `proxy` is the instance whose Envoy asked. `detail` says more of what
    is no decision on a request: of an issuance `serial`, `spiffe_id`, `not_after`, `csr_sha256` and `agent`; of
    a change or an operation what was done to what. `shadow` is what policies that are tried beside the active
    ones said of the same request, which changed nothing; then `context` is what either of the two decisions
    read. `decided_by` is `proxy` where the sidecar decided by itself, by what policyd had compiled ("": policyd).
    """

    time: Time
    kind: Kind
    decision: Outcome | None = None
    status: int = 0
    decision_id: str = ""
    principal: str = ""
    action: str = ""
    resource: str = ""
    reasons: tuple[str, ...] = ()
    errors: tuple[Fault, ...] = ()
    context: Mapping[str, Any] = {}
    masked: tuple[str, ...] = ()
    revision: str = ""
    proxy: str = ""
    request_id: str = ""
    trace_id: str = ""
    span_id: str = ""
    cached: bool = False
    duration_us: int = 0
    detail: Mapping[str, Any] = {}
    shadow: Shadow | None = None
    decided_by: DecidedBy = ""


class Record(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """An Entry in its place: the `seq`-th record of `writer`, counted from 1 without gaps, after `prev`."""

    writer: str
    seq: int
    prev: str


def change_of(entry: Entry) -> Change | None:
    """What would change if the shadow policies were in force; None where there were none.

    `skipped`: they were not asked, so that the enforced decision was in time.
    """
    shadow = entry.shadow
    if shadow is None:
        return None
    if shadow.decision == "error":
        return "skipped" if [fault.source for fault in shadow.errors] == [ShadowSkipped.code] else "error"
    if shadow.decision == entry.decision:
        return "agree"
    return "would_deny" if shadow.decision == "deny" else "would_allow"


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Record)
_fresh: Final = sha256()  # to copy: looking the algorithm up again takes longer than hashing a line


def genesis(writer: str) -> str:
    """The `prev` of the first record of `writer`, in lower-case hex as every other."""
    return sha256(b"policyd journal " + writer.encode()).hexdigest()


def digest(line: bytes) -> str:
    """The hash of a whole line, its newline included: the `prev` of the record that follows."""
    hashed = _fresh.copy()
    hashed.update(line)
    return hashed.hexdigest()


def place(entry: Entry, writer: str, seq: int, prev: str) -> Record:
    """Give `entry` its place in the journal."""
    return Record(writer=writer, seq=seq, prev=prev, **asdict(entry))


def encode(record: Record) -> bytes:
    """One line of JSON, its newline included; raises JournalError for a value that has no line."""
    return encode_entry(record) + b"\n"


def encode_entry(entry: Entry) -> bytes:
    """The JSON of an entry that has no place yet; raises JournalError for a value that has no line."""
    if entry.time.tzinfo is None:
        raise JournalError("a record's time has a time zone, this one has none")
    try:
        body = _encoder.encode(entry)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise JournalError(f"a record that cannot be written as JSON: {error}") from error
    if len(body) >= MAX_LINE_BYTES:
        raise _too_long(body)
    return body


def check_length(body: bytes) -> None:
    """Raise JournalError for the JSON of an entry that could be too long in its place."""
    if len(body) + PLACE_BYTES > MAX_LINE_BYTES:
        raise _too_long(body)


def line_of(body: bytes, writer: str, seq: int, prev: str) -> bytes:
    """The line of an entry of which `body` is the JSON, in its place: what `encode` makes of its record."""
    line = body[:-1] + f',"writer":"{writer}","seq":{seq},"prev":"{prev}"}}\n'.encode()
    if len(line) > MAX_LINE_BYTES:
        raise _too_long(line)
    return line


def _too_long(line: bytes) -> JournalError:
    return JournalError(f"a record has at most {MAX_LINE_BYTES} bytes, this one {len(line)}")


def decode(line: bytes) -> Record:
    """Read a line, with or without its newline; unknown fields are passed over. Raises BrokenRecord."""
    if len(line) > MAX_LINE_BYTES:
        raise BrokenRecord(f"a record has at most {MAX_LINE_BYTES} bytes, this line has {len(line)}")
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenRecord(f"no record: {error}") from error
