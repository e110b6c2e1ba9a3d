"""What the address bar asks of the journal: a Filter, and the same for one record that comes.

Law: pure. An address that asks for what cannot be is answered with words, never with something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, get_args

from policyd.audit.ask.filters import CENTRAL, Decider, Filter
from policyd.audit.match import names
from policyd.audit.moments import span
from policyd.audit.record import Change, Kind, Outcome, Record, change_of
from policyd.errors import UsageError

MAX_VALUE: Final = 300  # characters
TEXTS: Final = ("principal", "resource", "method", "path", "policy", "revision", "request_id")
CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "decision": get_args(Outcome),
    "kind": get_args(Kind),
    "change": get_args(Change),
    "decided_by": get_args(Decider),
}
TIMES: Final = ("since", "until")
NAMES: Final = ("decision", "principal", "resource", "method", "path", "policy", "kind", "status", "decided_by", *TIMES)


def filter_of(asked: Mapping[str, str], now: datetime) -> Filter:
    """Read a query; raises UsageError. What is empty asks nothing."""
    given = {name: value.strip() for name, value in asked.items() if value.strip()}
    for name, value in given.items():
        if len(value) > MAX_VALUE:
            raise UsageError(f"`{name}` is longer than {MAX_VALUE} characters")
    found: dict[str, Any] = {name: given[name] for name in TEXTS if name in given}
    for name, known in CHOICES.items():
        if name in given:
            if given[name] not in known:
                raise UsageError(f"`{given[name][:40]}` is no {name}", remedy=f"it is one of {', '.join(known)}")
            found[name] = given[name]
    if "method" in found:
        found["method"] = found["method"].upper()
    if "status" in given:
        if not (given["status"].isascii() and given["status"].isdigit() and len(given["status"]) == 3):
            raise UsageError(f"`{given['status'][:40]}` is no status", remedy="write it as in 403")
        found["status"] = int(given["status"])
    if given.get("errors"):
        found["failed"] = True
    return Filter(span=span(given.get("since", ""), given.get("until", ""), now, UTC), **found)


def holds(wanted: Filter, record: Record) -> bool:
    """Whether a record is all that is asked for; the same as the Filter's condition says."""
    request = record.context.get("request")
    request = request if isinstance(request, Mapping) else {}
    return (
        wanted.span.holds(record.time)
        and wanted.decision in (None, record.decision)
        and wanted.kind in (None, record.kind)
        and wanted.status in (None, record.status)
        and wanted.request_id in (None, record.request_id)
        and wanted.method in (None, request.get("method", ""))
        and (wanted.principal is None or names(record.principal, wanted.principal))
        and (wanted.resource is None or names(record.resource, wanted.resource))
        and (wanted.path is None or _matches(wanted.path, str(request.get("path", ""))))
        and (wanted.policy is None or wanted.policy in record.reasons)
        and (wanted.revision is None or record.revision.startswith(wanted.revision))
        and (wanted.change is None or change_of(record) == wanted.change)
        and (wanted.decided_by is None or _decider(record) == wanted.decided_by)
        and (wanted.failed is None or (bool(record.errors) or record.decision == "error") is wanted.failed)
    )


def _decider(record: Record) -> str:
    """Who decided it, "" where nobody did."""
    return (record.decided_by or CENTRAL) if record.kind == "decision" else ""


def asks_nothing(wanted: Filter) -> bool:
    """Whether every record holds."""
    return wanted == Filter()


def _matches(wanted: str, path: str) -> bool:
    """As the Filter has it: only `*` has a meaning."""
    return re.fullmatch(".*".join(map(re.escape, wanted.split("*"))), path, re.DOTALL) is not None
