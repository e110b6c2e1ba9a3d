"""A decision that a sidecar made by itself, as a line: its Envoy writes it, the agent beside it hands it on unread but
for when the request ended, and policyd puts it on record.

Law: what is a request's own stands in front, and what requests have in common behind it, so that who reads very many
looks at most of a line once for all that are alike. A separator is a character that neither Envoy nor policyd lets into
a header, a path, a name or a policy's id; what Envoy prints of objects is JSON, which escapes it. Names in certificates
it prints as they are, so of others' than the mesh's own authority's only those are told that are SPIFFE ids. No
credential is in a line, and of a token no more than what policies read.

A line by Envoy's file logger costs it less than an entry of its gRPC access log, and is never dropped: what waits to be
written waits in Envoy, whoever reads the pipe, and an Envoy that is full of it decides no more (proxy.bootstrap).
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Final, NamedTuple

from policyd.names import (
    AUTHZ_FILTER,
    METADATA_USER,
    RBAC_FILTER,
    RBAC_RESULT,
    RBAC_RULE,
    STATE_DECISION_ID,
    USER,
)

PIPE: Final = "decisions.pipe"  # in the folder in which an agent runs an Envoy
SEPARATOR: Final = b"\x1f"
END: Final = b"\n"

# Envoy's operators (configuration/observability/access_log/usage), of what is a request's own
_OWN: Final = (
    "%START_TIME(%s%6f)%",  # microseconds
    "%DURATION%",  # milliseconds, of a tunnel that goes on none
    f"%FILTER_STATE({STATE_DECISION_ID}:PLAIN)%",
    "%DOWNSTREAM_REMOTE_ADDRESS%",
    "%REQ(X-REQUEST-ID)%",
    "%REQ(TRACEPARENT)%",
    "%REQ(X-B3-TRACEID)%",
    "%REQ(X-B3-SPANID)%",
)
# who asks: where nobody proves it, where only the mesh's own authority writes certificates, and where others do, too,
# whose names may be anything
NO_PEER: Final = ""
OWN_PEER: Final = "%DOWNSTREAM_PEER_URI_SAN%"
ANY_PEER: Final = (
    "%CEL(connection.uri_san_peer_certificate.matches('^spiffe://[a-zA-Z0-9._/-]*$')"
    " ? connection.uri_san_peer_certificate : '')%"
)
_TEXT: Final = SEPARATOR.decode()
_ABSENT: Final = "\x1e"  # of a header that is not there: no value has it


class Line(NamedTuple):
    """What a line has of a request's own, and `common`, from which `Kind` is read."""

    began: int  # microseconds
    decision_id: str
    source: bytes  # an address, as Envoy writes one
    request_id: str
    traces: tuple[bytes, bytes, bytes]  # the headers traceparent, x-b3-traceid and x-b3-spanid
    common: bytes


class Kind(NamedTuple):
    """What requests that are alike have in common; what is not there is empty."""

    listener: str
    revision: str
    result: str
    rule: str
    peer: str  # URIs in its certificate, with commas between them
    destination: str
    method: str
    authority: str
    path: str
    user: str  # JSON
    central: str  # the same: what policyd said of a request of the sample
    headers: dict[str, str]


_COLUMNS: Final = len(Kind._fields) - 1  # all but headers, of which there may be none


def form(listener: str, headers: Iterable[str], peer: str) -> str:
    """The line of a listener's decisions in Envoy's words, with these headers of requests (SubstitutionFormatString).

    `peer` is one of the three above. Operators say of a header that comes several times only the first value;
    expressions have all of them.
    """
    sent = "".join(_header(name) for name in headers)
    return _TEXT.join((*_OWN, *_common(listener, peer))) + sent + END.decode()


def _common(listener: str, peer: str) -> Iterable[str]:
    """What many have in common, in front of their headers and in the order of `Kind`."""
    return (
        listener.replace("%", "%%"),
        "%ROUTE_NAME%",
        f"%DYNAMIC_METADATA({RBAC_FILTER}:{RBAC_RESULT})%",
        f"%DYNAMIC_METADATA({RBAC_FILTER}:{RBAC_RULE})%",
        peer,
        "%DOWNSTREAM_LOCAL_ADDRESS%",
        "%REQ(:METHOD)%",
        "%REQ(:AUTHORITY)%",
        "%REQ(:PATH)%",
        f"%DYNAMIC_METADATA({METADATA_USER}:{USER})%",
        f"%DYNAMIC_METADATA({AUTHZ_FILTER})%",
    )


def _header(name: str) -> str:
    quoted = "".join(letter if letter.isalnum() or letter in "-_." else f"\\x{ord(letter):02x}" for letter in name)
    value = f"'{quoted}' in request.headers ? request.headers['{quoted}'] : '{_ABSENT}'"
    return f"{_TEXT}{name.replace('%', '%%')}=%CEL({value})%"


def line_of(line: bytes) -> Line:
    """Read a line, without its end; raises ValueError for what is none."""
    began, _, decision_id, source, request_id, parent, trace, span, common = line.split(SEPARATOR, len(_OWN))
    return Line(int(began), decision_id.decode("ascii"), source, text(request_id), (parent, trace, span), common)


def kind_of(common: bytes) -> Kind:
    """Read what a line has in common with others; raises ValueError for what is none."""
    columns = [text(one) for one in common.split(SEPARATOR)]
    if len(columns) < _COLUMNS:
        raise ValueError("a line has too few columns")
    sent = (one.partition("=") for one in columns[_COLUMNS:])
    headers = {name: value for name, _, value in sent if value != _ABSENT}
    return Kind._make((*columns[:_COLUMNS], headers))


def ended_at(line: bytes) -> int:
    """When a request ended, in microseconds and at most a millisecond too early; of a tunnel, when it began.

    Raises ValueError for what is no line.
    """
    began, took, _ = line.split(SEPARATOR, 2)
    return int(began) + int(took or 0) * 1000


def text(raw: bytes) -> str:
    """As Envoy tells it in a message: each byte that is no UTF-8 is a `!` (MessageUtil::sanitizeUtf8String)."""
    return raw.decode("utf-8", _SANITIZED)


def _sanitize(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "!", error.start + 1


_SANITIZED: Final = "policyd.sanitized"
codecs.register_error(_SANITIZED, _sanitize)
