"""What an operator, or the server by itself, did: as the journal has it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from policyd.audit.record import Entry, Outcome


def operation(
    time: datetime,
    name: str,
    detail: Mapping[str, Any],
    *,
    by: str = "",
    decision: Outcome = "allow",
    reasons: tuple[str, ...] = (),
) -> Entry:
    """The operation `name`; `by` whom as Cedar writes it, "" for the server itself, allowed or not for `reasons`."""
    return Entry(
        time=time,
        kind="operation",
        decision=decision,
        reasons=reasons,
        principal=by,
        detail={"operation": name, **detail},
    )


def owner(uid: int) -> str:
    """The owner of the folder, a user of this machine, as Cedar writes it."""
    return f'Operator::"unix:{uid}"'
