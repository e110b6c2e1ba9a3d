"""The Host that a request to the outside is about.

Law: it is what the route says that it leads to. Only where a route leads to whatever is asked for (a pattern of names)
is the Host header read, and then it has to be a name under that pattern.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from policyd.errors import IncompleteRequest
from policyd.mesh.matching import check_host
from policyd.mesh.model import Listener
from policyd.mesh.outside import HTTP_PORT, covers_name
from policyd.names import EXTENSION_HOST, EXTENSION_PORT

_NUMBER: Final = re.compile(r"[0-9]{1,5}")
_ASKED_PORT: Final = re.compile(r":([0-9]{1,5})$")


def leaves(listener: Listener, extensions: Mapping[str, str]) -> bool:
    """Whether what is asked for leaves the mesh: wherever a sidecar sends it out; at a gateway its route says so."""
    return listener.side == "egress" or (listener.side == "gateway" and EXTENSION_HOST in extensions)


def host_of(extensions: Mapping[str, str], host: str) -> str:
    """The Host's name, lower case; `host` is what was asked for, without port. Raises IncompleteRequest."""
    pattern = extensions.get(EXTENSION_HOST, "")
    if not pattern:
        raise IncompleteRequest("a check of a request to the outside names no host")
    if "*" not in pattern:
        return pattern
    name = _bare(host)
    if name is None or not covers_name(pattern, name):
        raise IncompleteRequest(f"`{host[:80]!a}` is no name under `{pattern}`, where the route leads")
    return name


def port_of(extensions: Mapping[str, str], authority: str) -> int:
    """The Host's port: the route's, or where it has none (0) the one asked for. Raises IncompleteRequest."""
    text = extensions.get(EXTENSION_PORT, "")
    if not _NUMBER.fullmatch(text) or int(text) > 65535:
        raise IncompleteRequest("a check of a request to the outside names no port")
    if int(text):
        return int(text)
    asked = _ASKED_PORT.search(authority)
    port = int(asked[1]) if asked else HTTP_PORT
    if not 0 < port < 65536:
        raise IncompleteRequest(f"`{authority[:80]!a}` has no port that can be")
    return port


def _bare(host: str) -> str | None:
    """A DNS name or address as a Host's id has it; None for anything else."""
    name = host.removeprefix("[").removesuffix("]")
    try:
        checked = check_host(name)
    except ValueError:
        return None
    try:
        return str(ipaddress.ip_address(checked))
    except ValueError:
        return checked
