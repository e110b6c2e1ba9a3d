"""Requests that Envoy refused before it asked, for a token that does not hold: what its access log tells, as an Entry.

Law: it is evidence and decides nothing, the caller has got 401 already. Who tells it is the certificate of the stream,
which must own the listener that the log is named after; what else is in it is as hostile as in a check. The id is that
of the answer: Envoy made it, in a form of its own, so that it is never that of a decision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from policyd.audit.record import Entry
from policyd.authz.logged import ENVOYS_ID, logged_of, query_of
from policyd.authz.record import Outcome, entry_of
from policyd.errors import IncompleteRequest, UnacceptableToken
from policyd.mesh.model import Listener, Mesh
from policyd.names import DECISION_ID_HEADER
from policyd.spiffe import SpiffeId

REFUSED: Final = "jwt_authn_access_denied"  # how Envoy's response_code_details begin
MAX_SAID: Final = 128

_DETAILS: Final = re.compile(rf"{REFUSED}\{{([A-Za-z0-9_,.'()-]+)\}}")


def listener_of(name: str, peer: SpiffeId, mesh: Mesh) -> Listener:
    """The listener that a log is named after; raises IncompleteRequest where the peer has none of that name."""
    listener = mesh.listeners.get(name)
    if listener is None or listener.owner != peer or not listener.issuers:
        raise IncompleteRequest(f"`{peer}` has no listener `{name[:80]!a}` that takes tokens")
    return listener


def entries(logged: Any, listener: Listener, mesh: Mesh, revision: str, now: datetime) -> Iterator[Entry]:
    """The entries of a StreamAccessLogsMessage; what says nothing that can be believed is passed over."""
    for one in logged.http_logs.log_entry:
        try:
            yield entry(one, listener, mesh, revision, now)
        except IncompleteRequest:
            continue


def entry(logged: Any, listener: Listener, mesh: Mesh, revision: str, now: datetime) -> Entry:
    """The entry of one HTTPAccessLogEntry; raises IncompleteRequest."""
    said = _DETAILS.fullmatch(logged.response.response_code_details[: MAX_SAID + len(REFUSED)])
    decision_id = logged.response.response_headers.get(DECISION_ID_HEADER, "")
    if said is None or not ENVOYS_ID.fullmatch(decision_id):
        raise IncompleteRequest("this is no refused token")
    error = UnacceptableToken(f"Envoy refused the token: {said[1].replace('_', ' ')}")
    query = query_of(logged_of(logged), listener, mesh, now)
    return entry_of(Outcome("deny", 401, revision, query, error=error), decision_id, now, 0)
