"""A request as it stands at one proxy, and what can be said of it in Envoy's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from policyd.errors import PolicydError

CONNECT = "CONNECT"


class NotUnderstood(PolicydError):
    """Something in a configuration of which this program does not know what Envoy makes of it."""

    code = "not_understood"


@dataclass(frozen=True, slots=True)
class Asked:
    """`authority` is Host, with the port if one was written; `path` has the query; header names are lower case.

    `claims` are those of verified tokens, by the name of the rule that was believed.
    """

    method: str
    authority: str
    path: str
    scheme: str = "http"
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    claims: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def bare_path(self) -> str:
        """The path without query and fragment."""
        return self.path.partition("?")[0].partition("#")[0]

    @property
    def host(self) -> str:
        """Host without its port, lower case."""
        return without_port(self.authority)

    @property
    def is_tunnel(self) -> bool:
        """Whether a connection is asked for."""
        return self.method == CONNECT

    def header(self, name: str) -> str | None:
        """A header's value, those that HTTP/2 keeps in front too; None where it is not there."""
        before = {":method": self.method, ":authority": self.authority, ":path": self.path, ":scheme": self.scheme}
        return before[name] if name in before else self.headers.get(name.lower())

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter, as it is written, which Envoy compares; None where it is not there."""
        for part in self.path.partition("?")[2].partition("#")[0].split("&"):
            key, _, value = part.partition("=")
            if key == name:
                return value
        return None

    def changed(self, **changes: object) -> Asked:
        """The request with something else in it."""
        return replace(self, **changes)  # type: ignore[arg-type]  # of the caller's own choosing


def without_port(authority: str) -> str:
    """Host without its port, lower case; an address in brackets keeps these."""
    host, colon, port = authority.rpartition(":")
    return (host if colon and port.isdigit() else authority).lower()
