"""What the names in a declaration may lead to, against which its rules are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policyd.mesh.model import Instance, Service
from policyd.mesh.outside import Outside


@dataclass(frozen=True, slots=True)
class Targets:
    """Instances by their names, Services by their ids, and the Hosts outside of the mesh."""

    instances: Mapping[str, Instance]
    services: Mapping[str, Service]
    outside: tuple[Outside, ...]
