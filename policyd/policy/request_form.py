"""The one form of a request, `FROM METHOD URL`, as in `productpage GET http://reviews/reviews/0`.

Law: FROM is `anonymous`, an instance, a service, a workload as `<service account>[.<namespace>]`, or a SPIFFE ID; a
tunnel is `FROM CONNECT <host>:<port>`. What the names mean in a mesh is said by `resolving`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from policyd.errors import InvalidInput, Problem

ANONYMOUS: Final = "anonymous"
CONNECT: Final = "CONNECT"
MAX_FORM: Final = 16384

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # a token (RFC 9110, 5.6.2)
_URL = re.compile(r"http://([A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?([/?].*)?", re.DOTALL)
_AUTHORITY = re.compile(r"([A-Za-z0-9._-]{1,253}):([0-9]{1,5})()")  # what a tunnel is asked for with
_EXAMPLE: Final = "write FROM METHOD URL, as in `productpage GET http://reviews/reviews/0`"


@dataclass(frozen=True, slots=True)
class Form:
    """The three parts, not resolved; `host` is lower case, `port` 0 where the URL has none, `target` path and
    query.
    """

    caller: str
    method: str
    url: str
    host: str
    port: int
    target: str

    @property
    def is_tunnel(self) -> bool:
        """Whether a connection is asked for, and no answer."""
        return self.method == CONNECT

    def __str__(self) -> str:
        """As it was written."""
        return f"{self.caller} {self.method} {self.url}"


def refused(message: str, remedy: str) -> InvalidInput:
    """A request that cannot be decided about as it was asked, and what to ask instead."""
    return InvalidInput([Problem("request", message, remedy=remedy)])


def parse_form(text: str) -> Form:
    """Split a request; raises InvalidInput."""
    parts = text.split(" ")
    if len(parts) != 3 or not all(parts) or len(text) > MAX_FORM:
        raise refused(f"`{text[:120]}` is no request", _EXAMPLE)
    caller, method, url = parts
    tunnel = method == CONNECT
    match = (_AUTHORITY if tunnel else _URL).fullmatch(url)
    if not _METHOD.fullmatch(method):
        raise refused(f"`{method[:80]}` is no HTTP method", _EXAMPLE)
    if match is None or int(match[2] or 0) > 65535:
        remedy = "write <host>:<port>" if tunnel else "write http://<service>[:<port>]/<path>"
        raise refused(f"`{url[:120]}` is no {'place for a tunnel' if tunnel else 'URL of the mesh'}", remedy)
    target = match[3] or "/"
    return Form(caller, method, url, match[1].lower(), int(match[2] or 0), target if target[0] == "/" else f"/{target}")
