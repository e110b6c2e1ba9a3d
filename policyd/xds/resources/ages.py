"""What ends with an era: connections that are older than the newest revocation.

Law: nothing but the era's name is added, to each chain of a listener and to the clusters of whom it concerns. Envoy
takes a chain that changed for another one, tells who is connected by the old one to come again, and cuts who has not
when its drain time is over; of a cluster that changed no connection is used for what comes after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from policyd.mesh.model import Mesh
from policyd.spiffe import SpiffeId

_METADATA: Final = "policyd.era"


def listener(mesh: Mesh, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A listener that is of the era of now; one inside an Envoy ends with the connections that lead to it."""
    if not mesh.eras.now or "address" not in fields:
        return dict(fields)
    return {**fields, "filter_chains": [{**chain, **_named(mesh.eras.now)} for chain in fields["filter_chains"]]}


def cluster(mesh: Mesh, peers: Iterable[SpiffeId]) -> dict[str, Any]:
    """What a cluster has besides, by whom it may lead to."""
    era = mesh.eras.of_peers(peers)
    return _named(era) if era else {}


def _named(era: str) -> dict[str, Any]:
    return {"metadata": {"filter_metadata": {_METADATA: {"name": era}}}}
