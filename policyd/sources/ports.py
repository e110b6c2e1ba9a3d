"""The ports that the server itself listens on: chosen once, kept from then on.

Law: proxies find a restarted server where it was, so a port that is still free is never given up. What settings name
is taken or an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Final

import msgspec

from policyd.config.addresses import Address
from policyd.errors import StateError
from policyd.sources.state import write_private

MAX_TRIES: Final = 1000

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


def choose(
    wanted: Mapping[str, Address],
    before: Mapping[str, int],
    is_free: Callable[[int, str], bool],
    candidates: Iterator[int],
) -> dict[str, Address]:
    """An address for each name, its port free: the given one, else the one of `before`, else another.

    Raises StateError where a given port is in use.
    """
    chosen: dict[str, Address] = {}
    for name, address in wanted.items():
        taken = {one.port for one in chosen.values()}
        if address.port:
            if not is_free(address.port, address.host):
                remedy = f"free it, or give another one as `listen.{name.partition('-')[0]}` in policyd.yaml"
                raise StateError(f"`{address}` is in use by another program", remedy=remedy)
            chosen[name] = address
            continue
        tries = chain((before.get(name, 0),), islice(candidates, MAX_TRIES))
        port = next((p for p in tries if p and p not in taken and is_free(p, address.host)), None)
        if port is None:
            raise StateError(f"no free port was found for `listen.{name}`", remedy="give one in policyd.yaml")
        chosen[name] = Address(address.host, port)
    return chosen


def load(path: Path) -> dict[str, int]:
    """The ports of the last start; none where there is no such file, or one that says nothing."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Port])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def save(path: Path, chosen: Mapping[str, Address]) -> None:
    """Keep them for the next start; raises StateError."""
    try:
        write_private(path, msgspec.json.encode({name: address.port for name, address in chosen.items()}))
    except OSError as error:
        raise StateError(f"`{path}` cannot be written: {error.strerror}", remedy="check the disk") from None
