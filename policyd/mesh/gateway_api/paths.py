"""Redirects and rewrites of the Gateway API.

Law: a prefix is replaced by whole segments; the port of a redirect is left out where it is its scheme's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from policyd.mesh.gateway_api.http_filters import PathModifier, RedirectFilter, RewriteFilter
from policyd.mesh.gateway_api.values import PathRedirect
from policyd.mesh.istio.answers import Redirect, RegexRewrite, Rewrite

USUAL: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule holds: the host that is asked for, the prefix that was matched, and the port with its scheme."""

    host: str
    prefix: str = ""
    scheme: str = "http"
    port: int = 0


def rewrite(given: RewriteFilter, place: Place) -> Rewrite | None:
    """What the destination gets to see; None for a filter that says nothing."""
    if given.path is None:
        return Rewrite(authority=given.hostname) if given.hostname is not None else None
    return Rewrite(authority=given.hostname, uri_regex_rewrite=replaced(given.path, place.prefix))


def replaced(path: PathModifier, prefix: str) -> RegexRewrite:
    """How a path changes: as a whole, or in the segments that were matched (`prefix`, without a slash at its end)."""
    if path.type == "ReplaceFullPath":
        return RegexRewrite(match="^/.*$", rewrite=path.value)
    new = path.value.rstrip("/")
    if not new:  # nothing is left of the prefix, and a path begins with a slash
        return RegexRewrite(match=f"^{re.escape(prefix)}/*", rewrite="/")
    if not prefix:  # every path; the slash that it begins with stays
        return RegexRewrite(match="^/", rewrite=f"{new}/")
    return RegexRewrite(match=f"^{re.escape(prefix)}", rewrite=new)


def redirect(given: RedirectFilter, place: Place) -> Redirect:
    """The answer; its port is the one that is meant by the specification, unless it is the usual one of its scheme."""
    fields: dict[str, Any] = {"scheme": given.scheme, "redirect_code": given.status_code, **_where(given, place)}
    if given.path is None:
        return Redirect(**fields)
    if given.path.type == "ReplaceFullPath":
        return Redirect(uri=given.path.value, **fields)
    return PathRedirect(regex=replaced(given.path, place.prefix), uri=None, **fields)


def _where(given: RedirectFilter, place: Place) -> dict[str, Any]:
    """The host and the port; a host that is known is named, so that no port of the request stays with it."""
    scheme = given.scheme or place.scheme
    host = given.hostname or (None if place.host.startswith("*") else place.host)
    port = given.port or (USUAL[scheme] if given.scheme is not None else place.port)
    if host is not None and port == USUAL[scheme]:
        return {"authority": host}
    if given.port is None and given.scheme is None:
        return {"authority": given.hostname, "derive_port": "FROM_REQUEST_PORT"}
    return {"authority": given.hostname, "port": port}
