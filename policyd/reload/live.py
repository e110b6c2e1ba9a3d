"""What is in force together, what that is checked by, and what of it spares the next load work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from policyd.authz.entities import MeshEntities
from policyd.authz.ruling import Ruling
from policyd.cedar.engine import Engine
from policyd.cedar.policies import Checked
from policyd.cedar.schema import Schema, parse_schema
from policyd.config.settings import Settings
from policyd.errors import Problem
from policyd.local.enforcing import Enforced
from policyd.local.guarding import Guarded
from policyd.mesh.declaration import Declaration
from policyd.mesh.instances import KeptInstances
from policyd.mesh.model import Mesh
from policyd.mesh.placement import Placement
from policyd.sources.shipped import shipped_schema
from policyd.xds.resources.build import ProxyClass
from policyd.xds.resources.reuse import Snapshots


@dataclass(frozen=True, slots=True)
class Schemas:
    """The three schemas that ship, parsed once; no folder replaces one."""

    mesh: Schema
    issuance: Schema
    operators: Schema


def shipped_schemas() -> Schemas:
    """Parse them; raises InvalidInput where the installation lacks one."""
    return Schemas(*(parse_schema(shipped_schema(name), name) for name in ("mesh", "issuance", "operators")))


@dataclass(frozen=True, slots=True)
class Issuance:
    """The issuance policies in force; `revision` is the hash of their texts."""

    engine: Engine
    revision: str


@dataclass(frozen=True, slots=True)
class Live:
    """All that is in force together.

    `operators` are the folder's policies on operators, None where it has none.
    `digest` is the folder's, `texts` and `files` have its files and the digest of each; `config` names what all proxies
    are sent; `shadow_place` is the shadow folder, "" where there is none.
    """

    digest: str
    texts: Mapping[str, str] = field(repr=False)
    files: Mapping[str, str]
    settings: Settings
    declaration: Declaration = field(repr=False)
    placement: Placement
    mesh: Mesh
    ruling: Ruling
    issuance: Issuance
    snapshots: Snapshots[ProxyClass]
    config: str
    warnings: tuple[Problem, ...]
    shadow_place: str = ""
    operators: Engine | None = field(default=None, repr=False)
    enforced: Enforced = field(default_factory=Enforced, repr=False)
    guarded: Guarded = field(default_factory=Guarded, repr=False)


@dataclass(frozen=True, slots=True)
class Earlier:
    """What earlier loads have found out and this one need not: policies that are good, what files say, what was made.

    What follows from it is equal to what a load without it finds.
    """

    active: Checked = field(default_factory=Checked)
    shadow: Checked = field(default_factory=Checked)
    instances: KeptInstances = field(default_factory=KeptInstances)
    declaration: Declaration | None = None
    snapshots: Snapshots[ProxyClass] | None = None
    entities: MeshEntities | None = None
    enforced: Enforced | None = None
    guarded: Guarded | None = None

    def after(self, live: Live) -> Earlier:
        """What the next load need not find out once this was loaded."""
        return replace(
            self,
            declaration=live.declaration,
            snapshots=live.snapshots,
            entities=live.ruling.entities,
            enforced=live.enforced,
            guarded=live.guarded,
        )
