"""Lines of decisions, as a sidecar's Envoy writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from policyd.audit.stencil import EPOCH, MICROSECOND
from tests.authz.checks import PAGE

ID: Final = "4b4613d7-14ea-4b04-b833-9cd0c0bb8add"
BEGAN: Final = datetime(2026, 11, 23, 11, 59, 59, 250_000, UTC)
LISTENER: Final = "reviews-v1/inbound"
# what its filter lets pass by the policy `red`; in the order of the line, but for the headers
_COLUMNS: Final[Mapping[str, Any]] = {
    "began": BEGAN,
    "took": 3,
    "decision_id": ID,
    "source": "10.0.0.1:41000",
    "request_id": "r-1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "b3_trace": "",
    "b3_span": "",
    "listener": LISTENER,
    "revision": "",
    "result": "allowed",
    "rule": "red",
    "peer": str(PAGE),
    "destination": "10.0.0.2:15006",
    "method": "GET",
    "authority": "Reviews:9080",
    "path": "/reviews/0?token=secret",
    "user": "",
    "central": "",
}


def line(revision: str, headers: Mapping[str, str] | None = None, **changes: Any) -> bytes:
    """A line without its end; `changes` by the names above, moments and objects as what they are."""
    columns = {**_COLUMNS, "revision": revision, **changes}
    if unknown := columns.keys() - _COLUMNS.keys():
        raise KeyError(unknown)
    sent = {"x-team": "red"} if headers is None else headers
    return "\x1f".join([*map(_told, columns.values()), *(f"{name}={value}" for name, value in sent.items())]).encode()


def _told(value: Any) -> str:
    if isinstance(value, datetime):
        return str((value - EPOCH) // MICROSECOND)
    return json.dumps(value, separators=(",", ":")) if isinstance(value, dict) else str(value)
