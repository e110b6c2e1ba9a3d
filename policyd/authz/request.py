"""A check of Envoy's (envoy.service.auth.v3.CheckRequest) to the facts that a decision is about.

Law: who asks is `peer`, the certificate of the check's connection; for which side is the listener that our
own xDS put on the route, which must be that peer's own. Whoever is missing something, or contradicts itself,
gets an error and no decision. Headers and Host describe the request; they never say who or what.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from policyd.authz.context import METHODS
from policyd.authz.egress import host_of, leaves, port_of
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.cedar.reads import WITHHELD_HEADERS
from policyd.errors import IncompleteRequest, SpiffeIdError
from policyd.mesh.matching import check_host
from policyd.mesh.model import Listener, Mesh
from policyd.mesh.protocols import takes_connections, takes_requests
from policyd.names import (
    EXTENSION_LISTENER,
    EXTENSION_SAMPLED,
    EXTENSION_TLS,
    METADATA_LISTENER,
    METADATA_NAMESPACE,
    SNI_HEADER,
)
from policyd.spiffe import SpiffeId

MAX_HEADERS: Final = 128  # our Envoys take 100
MAX_METHOD: Final = 64
MAX_HOST: Final = 260  # a DNS name, a colon and a port
MAX_REQUEST_ID: Final = 128

MAX_HEADER_BYTES: Final = 65536  # names and values together; our Envoys take 60 KiB
# what a record tells of a request besides the decision
TRACE_HEADERS: Final = ("traceparent", "x-b3-traceid", "x-b3-spanid")
FORWARDED_FOR: Final = "x-forwarded-for"
TOLD_HEADERS: Final = ("x-request-id", *TRACE_HEADERS)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # a header value may have tabs
_VISIBLE = re.compile(r"[\x21-\x7e]*")
_ZONED = re.compile(r"([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)%[0-9A-Za-z._-]+")  # RFC 4007, 11
_PORT = re.compile(r":[0-9]*$")
_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")  # W3C Trace Context
_HEX = re.compile(r"[0-9a-f]{16}(?:[0-9a-f]{16})?")


Metadata = Iterable[tuple[str, str | bytes]]  # of a call, as gRPC gives it


class Query(NamedTuple):
    """One check, read and believed: the facts, and what a record tells beside them ("" where unknown)."""

    facts: HttpFacts
    listener: Listener
    request_id: str = ""
    trace_id: str = ""
    span_id: str = ""
    is_sample: bool = False  # the proxy decides, and wants to know what we would say


def traced(query: Query, told: Metadata) -> Query:
    """The query, of the trace that came with the question: then a request is in its record's trace at its first hop."""
    trace_id, span_id = trace_of(dict(told))
    if not trace_id:
        return query
    facts, listener, request_id, _, _, is_sample = query
    return Query(facts, listener, request_id, trace_id, span_id, is_sample)  # `_replace` takes four times as long


def read_check(
    check: Any, peer: SpiffeId, mesh: Mesh, now: datetime, headers_read: Collection[str] | None = None
) -> Query:
    """Read a CheckRequest message; raises IncompleteRequest. The path is not looked at here.

    `headers_read` are the headers that matter to policies (lower case); None: all.
    """
    attributes = check.attributes
    listener = _listener(attributes, peer, mesh)
    http = attributes.request.http
    headers = headers_of(http, headers_read)
    method = http.method
    if method not in METHODS and (not _TOKEN.fullmatch(method) or len(method) > MAX_METHOD):
        raise IncompleteRequest("the check has no usable method")
    if listener.side != "egress":
        _check_kind(method, listener)
    outside, port = "", listener.port
    host = host_asked(http.host)
    if leaves(listener, attributes.context_extensions):
        outside = host_of(attributes.context_extensions, host)
        port = port_of(attributes.context_extensions, http.host)
    # a stranger's connection; a workload's tunnel is asked for by the name itself
    strange = listener.side == "gateway" and not listener.verifies_peers and listener.protocol == "tcp"
    said = http.headers.get(SNI_HEADER, "") if strange or listener.protocol == "tls" else ""
    sni = _asked_name(said) if strange else None
    guarded = _guarded_name(attributes, listener, host) or name_served(said, listener, host)
    client = _client(http.headers.get(FORWARDED_FOR, ""), listener.trusted_proxies) if listener.trusted_proxies else ""
    facts = HttpFacts(
        principal=principal_of(attributes.source.principal, listener, mesh),
        service="" if outside else listener.service,
        method=method,
        target=http.path,
        host=host if sni is None else sni,
        time=now,
        source=endpoint(attributes.source.address.socket_address, "source"),
        destination=Endpoint(endpoint(attributes.destination.address.socket_address, "destination").ip, port),
        instance=listener.instance,
        headers=headers,
        outside=outside,
        sni=sni or guarded,
        client=client,
    )
    trace_id, span_id = trace_of(headers)
    request_id = headers.get("x-request-id", http.id)
    is_sample = EXTENSION_SAMPLED in attributes.context_extensions
    return Query(facts, listener, usable_id(request_id), trace_id, span_id, is_sample)


def _client(forwarded: str, proxies: int) -> str:
    """Who the first of so many proxies in a row says that it was asked by; "" where that is nobody.

    Each adds whom it was asked by itself, and so did the gateway: what a client wrote is in front of that.
    """
    said = forwarded.split(",")
    return (_ip(said[-1 - proxies].strip()) or "") if len(said) > proxies else ""


def usable_id(text: str) -> str:
    """The id of a request, "" where it is none that a record has."""
    return text if len(text) <= MAX_REQUEST_ID and _VISIBLE.fullmatch(text) else ""


def _check_kind(method: str, listener: Listener) -> None:
    takes = takes_connections if method == "CONNECT" else takes_requests
    if not takes(listener.protocol):
        kind = "requests" if method == "CONNECT" else "connections"
        raise IncompleteRequest(f"`{method}` at `{listener.name}`, which is for {kind}")


def _listener(attributes: Any, peer: SpiffeId, mesh: Mesh) -> Listener:
    name = attributes.context_extensions.get(EXTENSION_LISTENER, "")
    if not name and METADATA_NAMESPACE in (metadata := attributes.metadata_context.filter_metadata):
        name = metadata[METADATA_NAMESPACE].fields[METADATA_LISTENER].string_value
    listener = mesh.listeners.get(name)
    if listener is None:
        raise IncompleteRequest(f"the check names no listener of the mesh: `{name[:80]!a}`")
    if listener.owner != peer:
        raise IncompleteRequest(f"the listener `{name}` belongs to `{listener.owner}`, not to the asking `{peer}`")
    _check_own(attributes, listener, peer)
    return listener


def _check_own(attributes: Any, listener: Listener, peer: SpiffeId) -> None:
    """A proxy asks about connections to its own identity; what it shows strangers is no identity of the mesh."""
    own = attributes.destination.principal
    if own and listener.verifies_peers and own != str(peer):
        raise IncompleteRequest(f"`{peer}` asks about a connection to `{own[:80]!a}`")


def principal_of(text: str, listener: Listener, mesh: Mesh) -> SpiffeId | None:
    """The caller; None, the unauthenticated one, wherever the listener does not verify against the mesh's
    bundles. Who asks for the outside is the owner of the proxy that it asks through.
    """
    if listener.side == "egress":
        return listener.owner
    if not listener.verifies_peers:
        return None
    caller = spiffe_id(text)
    if caller is None:
        raise IncompleteRequest(f"a peer without an identity on `{listener.name}`, which verifies them")
    if caller.trust_domain != mesh.trust_domain and caller.trust_domain not in mesh.federated:
        raise IncompleteRequest(f"`{caller}` is of no trust domain that `{listener.name}` verifies")
    if not caller.path or caller.agent_name is not None or caller.is_policyd:
        raise IncompleteRequest(f"`{caller}` is no workload")
    return caller


def _asked_name(name: str) -> str:
    """The name that a client of TLS asked a gateway for, "" for none: of a tunnel that the gateway made itself."""
    try:
        return check_host(name) if name else ""
    except ValueError:
        raise IncompleteRequest(f"`{name[:80]!a}` is no name to ask for") from None


def _guarded_name(attributes: Any, listener: Listener, name: str) -> str:
    """The name that a client of TLS in a tunnel asks for, lest none of its bytes gets on; "" where it may be any."""
    if listener.side == "egress" or (listener.side == "gateway" and listener.verifies_peers):
        guarded: str = attributes.context_extensions.get(EXTENSION_TLS, "")
        return name if guarded == "*" else guarded
    return ""


def name_served(said: str, listener: Listener, name: str) -> str:
    """The name that TLS in a tunnel to an application is for: what a gateway `said`, or the tunnel's own `name`.

    "" where nobody looks; raises IncompleteRequest. Clients are held to what stands in front of the first colon, so
    what has one behind a name would be decided by another; and whoever serves `shop` takes `shop.` for the same.
    """
    if listener.side != "inbound" or listener.protocol != "tls":
        return ""
    if not said and (":" in name or name.endswith(".")) and not name.startswith("["):
        raise IncompleteRequest(f"`{name[:80]!a}` is no name to ask for")
    return _asked_name(said) or name


@lru_cache(maxsize=4096)
def spiffe_id(text: str) -> SpiffeId | None:
    """The SPIFFE ID that a text is, or None; the same few come again and again."""
    try:
        return SpiffeId.parse(text)
    except SpiffeIdError:
        return None


def endpoint(address: Any, end: str) -> Endpoint:
    """The address of one end (core.v3.SocketAddress); only IP sockets have one. Raises IncompleteRequest.

    The zone of a link-local one, which is a number of one machine's, is left out: Envoy compares addresses without it,
    and so do the filters that decide in sidecars.
    """
    text: str = address.address
    zoned = _ZONED.fullmatch(text) if "%" in text else None
    ip = _ip(zoned[1] if zoned else text)
    if ip is None:
        raise IncompleteRequest(f"the {end} of the connection has no address")
    return Endpoint(ip, address.port_value)


@lru_cache(maxsize=4096)
def _ip(text: str) -> str | None:
    """An address in its usual form; None for anything else, one with a zone too, which nobody but Envoy may tell.

    One of IPv4 in IPv6, as proxies on both write it, is that of IPv4: no range that a policy names would hold it.
    """
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if "%" in text else str(getattr(ip, "ipv4_mapped", None) or ip)


@lru_cache(maxsize=1024)
def host_asked(text: str) -> str:
    """What was asked for: lower case and without port (an address in brackets keeps them).

    Raises IncompleteRequest.
    """
    if not text or len(text) > MAX_HOST or not _VISIBLE.fullmatch(text):
        raise IncompleteRequest("the check has no usable host")
    return _PORT.sub("", text).lower()


def headers_of(http: Any, read: Collection[str] | None) -> dict[str, str]:
    """The headers that matter, those of `read` and the ones that records tell, or all; those that are withheld never.

    Names in lower case, repeated ones joined with a comma (RFC 9110, 5.3). Raises IncompleteRequest.
    """
    sent = http.headers
    count = len(sent) + len(http.header_map.headers)
    whole = read is None or bool(http.header_map.headers)
    found = _all(http) if whole else {name: sent[name] for name in (*TOLD_HEADERS, *(read or ())) if name in sent}
    if count > MAX_HEADERS or sum(map(len, (*found, *found.values()))) > MAX_HEADER_BYTES:
        raise IncompleteRequest(f"a check has at most {MAX_HEADERS} headers and {MAX_HEADER_BYTES} bytes of them")
    if any(map(_CONTROL.search, found.values())) or (whole and not all(map(_TOKEN.fullmatch, found))):
        raise IncompleteRequest("a header has characters that no header has")
    return found


def _all(http: Any) -> dict[str, str]:
    """Every header, from `headers`, or from `header_map` where the filter's encode_raw_headers is set.

    `:path` and such are left out: fields have them.
    """
    raw = [(one.key, one.value or one.raw_value.decode("utf-8", "replace")) for one in http.header_map.headers]
    headers: dict[str, str] = {}
    for name, value in (*http.headers.items(), *raw):
        key = name.lower()
        # Envoy does not send the withheld ones; should it, they are not kept
        if key and not key.startswith(":") and key not in WITHHELD_HEADERS:
            headers[key] = f"{headers[key]},{value}" if key in headers else value
    return headers


def trace_of(headers: Mapping[str, str | bytes]) -> tuple[str, str]:
    """The trace and span that the request says it belongs to, W3C's or B3's words; bytes are in neither.

    Of most requests nothing is said, which takes no expression to see.
    """
    told = headers.get("traceparent")
    if isinstance(told, str) and (parent := _TRACE_PARENT.fullmatch(told)) is not None:
        trace, span = parent.groups()
        return trace, span
    trace, span = headers.get("x-b3-traceid"), headers.get("x-b3-spanid")
    if isinstance(trace, str) and isinstance(span, str) and _HEX.fullmatch(trace) and _HEX.fullmatch(span):
        return trace, span
    return "", ""
