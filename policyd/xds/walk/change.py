"""What a route makes of a request before it goes on: path, Host and headers (RouteAction, and what stands around it).

Law: as in Envoy: the narrowest place speaks first (a share, the route, its virtual host, the table).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from policyd.xds.walk.asked import Asked
from policyd.xds.walk.match import regex

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_ESCAPED_SLASH = re.compile(r"%(2[fF]|5[cC])")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")


def normalised(target: str) -> str | None:
    """A target as our listeners make it before anything looks at it; None for what they answer with 400."""
    path, mark, query = target.partition("#")[0].partition("?")
    if _ESCAPED_SLASH.search(path) or not path.startswith("/"):
        return None
    plain = _ESCAPE.sub(_decoded, path).replace("\\", "/")
    parts: list[str] = []
    steps = plain.split("/")[1:]
    for at, part in enumerate(steps):
        if part in (".", ".."):
            if part == ".." and parts:
                parts.pop()
            if at == len(steps) - 1:
                parts.append("")
        else:
            parts.append(part)
    return re.sub("/+", "/", f"/{'/'.join(parts)}") + mark + query


def _decoded(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if _UNRESERVED.fullmatch(character) else escape[0].upper()


def forwarded(asked: Asked, route: Mapping[str, Any], places: Iterable[Mapping[str, Any]]) -> Asked:
    """The request as the destination gets it; `places` are those with header operations, the narrowest first."""
    action = route["route"]
    around = list(places)
    host = next((one["host_rewrite_literal"] for one in (*around, action) if "host_rewrite_literal" in one), None)
    changed = asked.changed(path=_path(asked, route["match"], action), headers=_headers(asked.headers, around))
    changed = changed.changed(claims={})  # which only this proxy has verified
    return changed if host is None else changed.changed(authority=host)


def redirected(asked: Asked, match: Mapping[str, Any], redirect: Mapping[str, Any]) -> str:
    """The `location` of a RedirectAction."""
    scheme = "https" if redirect.get("https_redirect") else redirect.get("scheme_redirect", asked.scheme)
    authority = redirect.get("host_redirect", asked.authority)
    host, colon, port = authority.rpartition(":")
    if "port_redirect" in redirect:
        authority = f"{host if colon and port.isdigit() else authority}:{redirect['port_redirect']}"
    elif "host_redirect" not in redirect and scheme != asked.scheme and port in ("80", "443") and colon:
        authority = host  # the port of the scheme that was asked in means nothing in the other
    path, mark, query = asked.path.partition("?")
    if "path_redirect" in redirect:
        path = redirect["path_redirect"]
    elif "prefix_rewrite" in redirect:
        path = _prefix(path, match, redirect["prefix_rewrite"])
    return f"{scheme}://{authority}{path}{mark}{query}"


def _path(asked: Asked, match: Mapping[str, Any], action: Mapping[str, Any]) -> str:
    path, mark, query = asked.path.partition("?")
    if "prefix_rewrite" in action:
        path = _prefix(path, match, action["prefix_rewrite"])
    elif "regex_rewrite" in action:
        rewrite = action["regex_rewrite"]
        by = rewrite.get("substitution", "").replace("\\0", "\\g<0>")
        path = regex(rewrite["pattern"]["regex"]).sub(by, path)
    return f"{path}{mark}{query}"


def _prefix(path: str, match: Mapping[str, Any], new: str) -> str:
    """What matched is replaced: a prefix, or the whole path where it was that."""
    if "prefix" in match:
        return str(new) + path[len(match["prefix"]) :]
    if "path_separated_prefix" in match:
        return str(new) + path[len(match["path_separated_prefix"]) :]
    return str(new)


def _headers(headers: Mapping[str, str], places: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    found = dict(headers)
    for place in places:
        for name in place.get("request_headers_to_remove", ()):
            found.pop(name.lower(), None)
        for one in place.get("request_headers_to_add", ()):
            name, value = one["header"]["key"].lower(), one["header"].get("value", "").replace("%%", "%")
            if one.get("append_action", "APPEND_IF_EXISTS_OR_ADD") == "APPEND_IF_EXISTS_OR_ADD" and name in found:
                value = f"{found[name]},{value}"
            found[name] = value
    return found
