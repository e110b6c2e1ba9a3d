"""The facts behind the schema's HttpContext, before they are Cedar's: what any room can say of an HTTP request.

Law: facts only; who is believed about them was settled by the room that made the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from policyd.spiffe import SpiffeId


class Endpoint(NamedTuple):
    """One end of a connection: `ip` as text, checked by who made it."""

    ip: str
    port: int


class EndUser(NamedTuple):
    """Whom a verified token proves; `claims` are sets of texts by name (see cedar.claims)."""

    issuer: str
    subject: str
    claims: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    @property
    def id(self) -> str:
        """`<issuer>/<subject>`, the id of the User entity in policies."""
        return f"{self.issuer}/{self.subject}"


class HttpFacts(NamedTuple):
    """One request to `service` (an id), answered by `instance` (a name, "" where none is chosen yet).

    One that leaves the mesh has no service but the Host `outside` (lower case), and `instance` is who sends it out.

    `principal` None is an unauthenticated caller. `target` is the path with its query, as sent; `host` is
    lower case and without port; header names are lower case. `time` is aware. `user` None: no token was shown.
    """

    principal: SpiffeId | None
    service: str
    method: str
    target: str
    host: str
    time: datetime
    source: Endpoint
    destination: Endpoint
    instance: str = ""
    headers: Mapping[str, str] = MappingProxyType({})
    outside: str = ""
    sni: str = ""  # of a tunnel, where it is known
    user: EndUser | None = None
    client: str = ""  # an address, where another one than that of the connection is believed

    @property
    def is_tunnel(self) -> bool:
        """Whether it asks for a connection instead of an answer (RFC 9110, 9.3.6)."""
        return self.method == "CONNECT"
