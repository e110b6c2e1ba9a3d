"""Requests of a client that stay with one instance, of which its cookie or header tells (stateful_session).

Law: who tells of an instance that is none of the route's own, or no longer there, gets another one, and is told it.
"""

from __future__ import annotations

from typing import Any, Final

from policyd.mesh.gateway_api.sessions import Session
from policyd.mesh.gateway_api.values import Persistent
from policyd.mesh.istio.http_route import HttpRoute
from policyd.xds.resources.filters import HTTP
from policyd.xds.resources.model import seconds

NAME: Final = "envoy.filters.http.stateful_session"
_TYPE: Final = f"{HTTP}.stateful_session.v3"
_STATE: Final = "type.googleapis.com/envoy.extensions.http.stateful_session"
# nothing is done but where a route says so
FILTER: Final = {"name": NAME, "typed_config": {"@type": f"{_TYPE}.StatefulSession"}, "disabled": True}


def of_route(rule: HttpRoute) -> dict[str, Any]:
    """What a route carries whose clients stay (typed_per_filter_config)."""
    if not isinstance(rule, Persistent):
        return {}
    session = {"session_state": _cookie(rule.session) if rule.session.by == "Cookie" else _header(rule.session)}
    return {NAME: {"@type": f"{_TYPE}.StatefulSessionPerRoute", "stateful_session": session}}


def _cookie(session: Session) -> dict[str, Any]:
    cookie = {
        "name": session.name,
        "path": session.path,
        **({"ttl": seconds(session.ttl)} if session.ttl is not None else {}),
    }
    config = {"@type": f"{_STATE}.cookie.v3.CookieBasedSessionState", "cookie": cookie}
    return {"name": "envoy.http.stateful_session.cookie", "typed_config": config}


def _header(session: Session) -> dict[str, Any]:
    config = {"@type": f"{_STATE}.header.v3.HeaderBasedSessionState", "name": session.name}
    return {"name": "envoy.http.stateful_session.header", "typed_config": config}
