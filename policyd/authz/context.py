"""The facts of a request as the schema's HttpContext (policies/mesh.cedarschema).

Law: every entity that the context names is made here too, empty or not: of a missing one Cedar says no.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from policyd.authz.path import segment_count
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.cedar.model import Entity, Uid
from policyd.cedar.reads import Paths

METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})  # the schema's own actions
HEADERS: Final = Uid("Headers", "request")
HEADERS_REFERENCE: Final = {"__entity": HEADERS.json()}

CONNECT: Final = Uid("Action", "connect")

_OTHER: Final = Uid("Action", "other")
_ACTIONS: Final = {method: Uid("Action", method) for method in METHODS}


def action_of(method: str) -> Uid:
    """The action of an HTTP method, which is case-sensitive (RFC 9110, 9.1); any unknown one is `other`."""
    return _ACTIONS.get(method, _OTHER)


def http_context(
    facts: HttpFacts, path: str, labels: Entity, read: Paths | None = None, user: Entity | None = None
) -> dict[str, Any]:
    """The HttpContext of a request on a canonical path, answered by the instance with these labels.

    Of what takes time to make, only the attributes of `read` are made; None: all.
    """
    context: dict[str, Any] = {
        "request": {
            "method": facts.method,
            "host": facts.host,
            "path": path,
            "segments": segment_count(path),
            "headers": HEADERS_REFERENCE,
        },
    }
    if read is None or "client_ip" in read:
        context["client_ip"] = _extension("ip", facts.client or facts.source.ip)
    if user is not None:
        context["user"] = {"__entity": user.uid.json()}
    return _with_ends(context, facts, labels, read)


def tcp_context(facts: HttpFacts, labels: Entity, read: Paths | None = None) -> dict[str, Any]:
    """The TcpContext of a tunnel or connection; `sni` only where a client sent one. `read` is as for requests."""
    return _with_ends({"sni": facts.sni} if facts.sni else {}, facts, labels, read)


def _with_ends(context: dict[str, Any], facts: HttpFacts, labels: Entity, read: Paths | None) -> dict[str, Any]:
    """Add what every context has."""
    if read is None or "source" in read:
        context["source"] = _end(facts.source)
    if read is None or "destination" in read:
        context["destination"] = {**_end(facts.destination), "labels": {"__entity": labels.uid.json()}}
    if read is None or "time" in read:
        context["time"] = _extension("datetime", _moment(facts.time))
    return context


def _end(end: Endpoint) -> dict[str, Any]:
    return {"ip": _extension("ip", end.ip), "port": end.port}


def _extension(function: str, argument: str) -> dict[str, Any]:
    return {"__extn": {"fn": function, "arg": argument}}


def _moment(time: datetime) -> str:
    """As Cedar's datetime reads it: UTC, milliseconds."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
