"""Questions about what was issued: the records of issuance are the ledger, and the copy in columns is its index.

Law: pure. Names of columns are from the table `records`; what users write is a value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from policyd.audit.ask.child import Question
from policyd.audit.ask.columns import FIELDS
from policyd.audit.ask.filters import Filter
from policyd.audit.scan import Span

SERIAL_DIGITS: Final = 32
LEAST_DIGITS: Final = 6
_FIELDS: Final = ", ".join(f'"{one.name}"' for one in FIELDS)
_NAME: Final = "coalesce(detail->>'$.serial', detail->>'$.jti')"
_KIND: Final = "detail->>'$.evidence.kind'"
_END: Final = "(detail->>'$.not_after')::TIMESTAMP"


@dataclass(frozen=True, slots=True)
class Issued:
    """What is asked about: `evidence` is a kind of it or a selector, `valid_at` and `ends_before` bound the end; "" and
    None ask nothing.
    """

    span: Span = field(default_factory=Span)
    identity: str | None = None
    agent: str = ""
    evidence: str = ""
    valid_at: datetime | None = None
    ends_before: datetime | None = None


def issued(wanted: Issued, limit: int) -> Question:
    """Certificates and tokens, the first to end first."""
    parts, values = _conditions(wanted, "allow")
    sql = (
        f"SELECT {_NAME} AS name, action, detail->>'$.spiffe_id' AS spiffe_id, time AS issued,"  # noqa: S608
        f" {_END} AS ends, coalesce(detail->>'$.agent', '') AS agent, detail->>'$.requested_by' AS requested_by,"
        f" detail->>'$.evidence.kind' AS evidence FROM records WHERE {' AND '.join([*parts, f'{_NAME} IS NOT NULL'])}"
        f" ORDER BY ends, issued, name LIMIT {int(limit)}"
    )
    return Question(sql, tuple(values))


def by_name(name: str, limit: int) -> Question:
    """The issuance records of a serial number or a token's `jti`, or of those that begin so."""
    sql = (
        f"SELECT {_FIELDS} FROM records WHERE kind = 'issuance' AND starts_with({_NAME}, ?)"  # noqa: S608
        f" ORDER BY time, writer, seq LIMIT {int(limit)}"
    )
    return Question(sql, (name,))


def newest(wanted: Issued, decision: str | None, limit: int) -> Question:
    """The newest records of issuance, refusals too, the oldest of them first."""
    parts, values = _conditions(wanted, decision)
    inner = (
        f"SELECT * FROM records WHERE {' AND '.join(parts)} ORDER BY time DESC, writer DESC, seq DESC LIMIT {limit:d}"  # noqa: S608
    )
    return Question(f"SELECT {_FIELDS} FROM ({inner}) ORDER BY time, writer, seq", tuple(values))  # noqa: S608


def _conditions(wanted: Issued, decision: str | None) -> tuple[list[str], list[object]]:
    """What a record has to meet, and the values that stand for `?` there."""
    condition = Filter(wanted.span, decision=decision, resource=wanted.identity, kind="issuance").condition()
    parts: list[str] = [condition.sql]
    values: list[object] = [*condition.values]
    if wanted.agent:
        parts.append("detail->>'$.agent' = ?")
        values.append(wanted.agent)
    if wanted.evidence:
        parts.append(f"({_KIND} = ? OR json_contains(detail->'$.evidence.selectors', to_json(?::VARCHAR)))")
        values += [wanted.evidence, wanted.evidence]
    for moment, sign in ((wanted.valid_at, ">"), (wanted.ends_before, "<")):
        if moment is not None:
            parts.append(f"{_END} {sign} ?::TIMESTAMP")
            values.append(moment.astimezone(UTC).replace(tzinfo=None).isoformat())
    return parts, values


def serial_of(text: str) -> str:
    """A serial number as records have it, from how people and openssl write it; raises ValueError."""
    digits = re.sub(r"(?i)^(serial=)|:|\s", "", text).lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{1,40}", digits):
        raise ValueError(f"`{text[:80]}` is no serial number")
    if len(digits) < LEAST_DIGITS:
        raise ValueError(f"`{text[:80]}` is too short for a serial number; write at least {LEAST_DIGITS} digits of it")
    return digits.zfill(SERIAL_DIGITS) if len(digits) >= SERIAL_DIGITS - 2 else digits  # openssl drops leading zeros
