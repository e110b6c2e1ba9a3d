"""The facts of a request as the schema's HttpContext (policies/mesh.cedarschema).

Law: every entity that the context names is made here too, empty or not: of a missing one Cedar says no.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from policyd.authz.path import segment_count
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.cedar.model import Entity, Uid

METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})  # the schema's own actions
HEADERS: Final = Uid("Headers", "request")

CONNECT: Final = Uid("Action", "connect")

_OTHER: Final = Uid("Action", "other")
_ACTIONS: Final = {method: Uid("Action", method) for method in METHODS}


def action_of(method: str) -> Uid:
    """The action of an HTTP method, which is case-sensitive (RFC 9110, 9.1); any unknown one is `other`."""
    return _ACTIONS.get(method, _OTHER)


def http_context(facts: HttpFacts, path: str, labels: Entity) -> dict[str, Any]:
    """The HttpContext of a request on a canonical path, answered by the instance with these labels."""
    return {
        "request": {
            "method": facts.method,
            "host": facts.host,
            "path": path,
            "segments": segment_count(path),
            "headers": {"__entity": HEADERS.json()},
        },
        "source": _end(facts.source),
        "client_ip": _extension("ip", facts.source.ip),
        "destination": {**_end(facts.destination), "labels": {"__entity": labels.uid.json()}},
        "time": _extension("datetime", _moment(facts.time)),
    }


def tcp_context(facts: HttpFacts, labels: Entity) -> dict[str, Any]:
    """The TcpContext of a tunnel or connection; `sni` only where a client sent one."""
    context: dict[str, Any] = {
        "source": _end(facts.source),
        "destination": {**_end(facts.destination), "labels": {"__entity": labels.uid.json()}},
        "time": _extension("datetime", _moment(facts.time)),
    }
    return context | {"sni": facts.sni} if facts.sni else context


def _end(end: Endpoint) -> dict[str, Any]:
    return {"ip": _extension("ip", end.ip), "port": end.port}


def _extension(function: str, argument: str) -> dict[str, Any]:
    return {"__extn": {"fn": function, "arg": argument}}


def _moment(time: datetime) -> str:
    """As Cedar's datetime reads it: UTC, milliseconds."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
