"""The one path: what a request's target means, in the only form that policies, records and people see.

Law: two targets that an application which decodes once cannot tell apart have the same canonical path, and a
target without such a form is refused. Envoy has been there first (normalize_path, merge_slashes, escaped
slashes refused), so what it always removes is a sign that it was not asked, and refused here. After RFC 3986:

    /a?x=1                       /a            a query is no part of the path (3.4)
    /%7Euser                     /~user        escapes of unreserved characters are decoded (6.2.2.2), as by Envoy
    /me%40home, /me@home         /me@home      and those of all others that a segment bears as they are (3.3, pchar)
    /caf%c3%a9                   /caf%C3%A9    other escapes stay, in upper case (6.2.2.1)
    /a%3Bx                       /a%3Bx        a semicolon as a mere character
    /admin;x=1                   refused       path parameters, unless the Service takes them: to some applications
                                               this is /admin
    /a%2Fb, /a%5Cb, /a\\b        refused       another number of segments, depending on who decodes
    /a%252e                      refused       escaped twice: who decodes twice sees another path
    /a%zz, /a%                   refused       no escape at all
    /a%00b, controls, escaped    refused       no part of a path
    space, é, <, {, |            refused       have to be escaped
    //a, /a/../b, /./a           refused       Envoy has resolved them
    a, *, /a#b and the empty     refused       no absolute path (3.3), a fragment (3.5)
"""

from __future__ import annotations

import re
from typing import Final

from policyd.errors import UnacceptablePath

MAX_PATH_BYTES: Final = 8192
MAX_TARGET_BYTES: Final = 65536  # path and query; Envoy's headers end at 60 KiB

_KEPT = r"A-Za-z0-9._~!$&'()*+,=:@\-"  # pchar without `;` and `%`
_PLAIN = re.compile(rf"(?:/[{_KEPT}]+)+/?|/")
_ALLOWED = re.compile(rf"[{_KEPT}/;%]*")
_KEEPS = re.compile(rf"[{_KEPT}]")
_VISIBLE = re.compile(r"[\x21-\x7e]*")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_TWICE = re.compile(r"%25[0-9A-Fa-f]{2}")
_DOTS = re.compile(r"/\.{1,2}(?:[/;]|$)")


def canonical_path(target: str, *, parameters: bool = False) -> str:
    """Return the canonical path of a request target; raises UnacceptablePath.

    `parameters` lets `;` stand, for Services that take path parameters.
    """
    if len(target) > MAX_TARGET_BYTES or not _VISIBLE.fullmatch(target):
        raise UnacceptablePath("a target has only visible ASCII characters, and not too many")
    path = target.partition("?")[0]
    if len(path) > MAX_PATH_BYTES:
        raise UnacceptablePath(f"a path has at most {MAX_PATH_BYTES} bytes, this one {len(path)}")
    if "#" in target:
        raise UnacceptablePath("a target has no fragment")
    if _PLAIN.fullmatch(path) and "/." not in path:
        return path
    if not path.startswith("/"):
        raise UnacceptablePath(f"`{path[:80]}` does not start with a slash")
    if not _ALLOWED.fullmatch(path):
        raise UnacceptablePath(f"`{path[:80]}` has characters that a path bears only as escapes")
    decoded = _ESCAPE.sub(_decode, path)
    if _TWICE.search(decoded):
        raise UnacceptablePath(f"`{path[:80]}` is escaped twice")
    _check_segments(decoded, parameters)
    return decoded


def segment_count(path: str) -> int:
    """The number of `/` in a canonical path: its segments, the empty one behind a last slash counted."""
    return path.count("/")


def _decode(escape: re.Match[str]) -> str:
    if escape[1] is None:
        raise UnacceptablePath("a `%` that starts no escape")
    character = chr(int(escape[1], 16))
    if character < " " or character in "\x7f/\\":
        raise UnacceptablePath(f"the escape `{escape[0]}` has no place in a path")
    return character if _KEEPS.fullmatch(character) else escape[0].upper()


def _check_segments(path: str, parameters: bool) -> None:
    if ";" in path and not parameters:
        raise UnacceptablePath(f"`{path[:80]}` has path parameters, which the service does not take")
    if "//" in path:
        raise UnacceptablePath(f"`{path[:80]}` has an empty segment")
    if _DOTS.search(path):
        raise UnacceptablePath(f"`{path[:80]}` has a dot segment")
