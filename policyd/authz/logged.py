"""A request as Envoy's access log tells it: the same facts as of a check, after it is over.

Law: pure. Who tells it is known, and the listener is one of that instance's; all else is as hostile as in a check.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

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


class Address(Protocol):
    """Of one end (core.v3.SocketAddress)."""

    @property
    def address(self) -> str:
        """An IP address."""

    @property
    def port_value(self) -> int:
        """A port."""


class Logged(NamedTuple):
    """What is told of a request; `shown` is the name in its peer's certificate, that Envoy has verified."""

    source: Address
    destination: Address
    shown: str
    method: str
    authority: str
    path: str
    headers: Mapping[str, str]
    request_id: str = ""
    trace: tuple[str, str] = ("", "")  # and the span


def logged_of(entry: Any) -> Logged:
    """What an HTTPAccessLogEntry tells."""
    common, request = entry.common_properties, entry.request
    headers: Mapping[str, str] = request.request_headers
    shown = common.tls_properties.peer_certificate_properties.subject_alt_name
    return Logged(
        common.downstream_remote_address.socket_address,
        common.downstream_local_address.socket_address,
        next((one.uri for one in shown if one.uri), ""),
        headers.get(":method", ""),
        request.authority,
        request.path,
        {name: value for name, value in headers.items() if name != ":method"},
        request.request_id,
        trace_of(headers),
    )


def query_of(logged: Logged, listener: Listener, mesh: Mesh, time: datetime) -> Query:
    """The request that was told of; raises IncompleteRequest."""
    method = logged.method
    if method not in METHODS and (not _TOKEN.fullmatch(method) or len(method) > MAX_METHOD):
        raise IncompleteRequest("the log has no usable method")
    local = endpoint(logged.destination, "destination")
    host = host_asked(logged.authority)
    facts = HttpFacts(
        principal=principal_of(logged.shown, listener, mesh),
        service=listener.service,
        method=method,
        target=logged.path,
        host=host,
        time=time,
        source=endpoint(logged.source, "source"),
        destination=Endpoint(local.ip, listener.port),
        instance=listener.instance,
        headers=dict(logged.headers),
        sni=name_served(logged.headers.get(SNI_HEADER, ""), listener, host),
    )
    return Query(facts, listener, usable_id(logged.request_id), *logged.trace)
