"""What a port speaks: told by its name or its `appProtocol`, as Istio reads them.

Law: a word that is not known here is no protocol; nothing is taken for HTTP because nobody said what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

# what is decided on a port: requests (http), or whole connections (tcp)
Protocol = Literal["http", "tcp"]

BY_WORD: Final[Mapping[str, Protocol]] = {"http": "http", "tcp": "tcp"}
CONNECTIONS: Final = frozenset({"tcp"})  # of all others each request is decided


def by_word(word: str) -> Protocol | None:
    """The protocol that a word means; None for one that means none."""
    return BY_WORD.get(word)


def by_name(name: str) -> Protocol | None:
    """The protocol that the name of a port begins with, as in `http-main`; None where it begins with none."""
    return by_word(name) or by_word(name.partition("-")[0])


def takes_requests(protocol: Protocol) -> bool:
    """Whether a port is asked for by requests, each decided."""
    return protocol not in CONNECTIONS


def takes_connections(protocol: Protocol) -> bool:
    """Whether a port is asked for by connections, each decided as a whole."""
    return protocol in CONNECTIONS
