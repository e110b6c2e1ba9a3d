"""A request as Envoy's access log tells it: the same facts as of a check, after it is over.

Law: pure. Who tells it is known, and the listener is one of that instance's; all else is as hostile as in a check.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from policyd.authz.context import METHODS
from policyd.authz.request import (
    MAX_METHOD,
    Query,
    endpoint,
    host_asked,
    name_served,
    principal_of,
    trace_of,
    usable_id,
)
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.errors import IncompleteRequest
from policyd.mesh.model import Listener, Mesh
from policyd.names import SNI_HEADER

ENVOYS_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # of a decision, as Envoy makes one
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def query_of(logged: Any, listener: Listener, mesh: Mesh, time: datetime) -> Query:
    """The request of an HTTPAccessLogEntry; raises IncompleteRequest."""
    common, request = logged.common_properties, logged.request
    headers: Mapping[str, str] = request.request_headers
    method = headers.get(":method", "")
    if method not in METHODS and (not _TOKEN.fullmatch(method) or len(method) > MAX_METHOD):
        raise IncompleteRequest("the log has no usable method")
    local = endpoint(common.downstream_local_address.socket_address, "destination")
    host = host_asked(request.authority)
    facts = HttpFacts(
        principal=principal_of(shown_by(common.tls_properties), listener, mesh),
        service=listener.service,
        method=method,
        target=request.path,
        host=host,
        time=time,
        source=endpoint(common.downstream_remote_address.socket_address, "source"),
        destination=Endpoint(local.ip, listener.port),
        instance=listener.instance,
        headers={name: value for name, value in headers.items() if name != ":method"},
        sni=name_served(headers.get(SNI_HEADER, ""), listener, host),
    )
    return Query(facts, listener, usable_id(request.request_id), *trace_of(headers))


def shown_by(tls: Any) -> str:
    """The name in the peer's certificate that Envoy has verified (of TLSProperties), "" without one."""
    shown = tls.peer_certificate_properties.subject_alt_name
    return next((one.uri for one in shown if one.uri), "")
