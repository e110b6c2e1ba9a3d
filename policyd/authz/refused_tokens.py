"""Requests that Envoy refused before it asked, for a token that does not hold: what its access log tells, as an Entry.

Law: it is evidence and decides nothing, the caller has got 401 already. Who tells it is the certificate of the stream,
which must own the listener that the log is named after; what else is in it is as hostile as in a check. The id is that
of the answer: Envoy made it, in a form of its own, so that it is never that of a decision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from policyd.audit.record import Entry
from policyd.authz.context import METHODS
from policyd.authz.record import Outcome, entry_of
from policyd.authz.request import MAX_METHOD, Query, endpoint, host_asked, principal_of, trace_of, usable_id
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.errors import IncompleteRequest, UnacceptableToken
from policyd.mesh.model import Listener, Mesh
from policyd.names import DECISION_ID_HEADER
from policyd.spiffe import SpiffeId

REFUSED: Final = "jwt_authn_access_denied"  # how Envoy's response_code_details begin
MAX_SAID: Final = 128

_DETAILS: Final = re.compile(rf"{REFUSED}\{{([A-Za-z0-9_,.'()-]+)\}}")
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


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
    if said is None or not _ID.fullmatch(decision_id):
        raise IncompleteRequest("this is no refused token")
    error = UnacceptableToken(f"Envoy refused the token: {said[1].replace('_', ' ')}")
    query = _query(logged, listener, mesh, now)
    return entry_of(Outcome("deny", 401, revision, query, error=error), decision_id, now, 0)


def _query(logged: Any, listener: Listener, mesh: Mesh, now: datetime) -> Query:
    common, request = logged.common_properties, logged.request
    headers: Mapping[str, str] = request.request_headers
    method = headers.get(":method", "")
    if method not in METHODS and (not _TOKEN.fullmatch(method) or len(method) > MAX_METHOD):
        raise IncompleteRequest("the log has no usable method")
    local = endpoint(common.downstream_local_address.socket_address, "destination")
    facts = HttpFacts(
        principal=principal_of(_identity(common), listener, mesh),
        service=listener.service,
        method=method,
        target=request.path,
        host=host_asked(request.authority),
        time=now,
        source=endpoint(common.downstream_remote_address.socket_address, "source"),
        destination=Endpoint(local.ip, listener.port),
        instance=listener.instance,
    )
    return Query(facts, listener, usable_id(request.request_id), *trace_of(headers))


def _identity(common: Any) -> str:
    """The name in the peer's certificate that Envoy has verified, "" without one."""
    shown = common.tls_properties.peer_certificate_properties.subject_alt_name
    return next((one.uri for one in shown if one.uri), "")
