"""Policies over Bookinfo, as the author's checks see them."""

from __future__ import annotations

from collections.abc import Mapping

from policyd.authz.entities import MeshEntities
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.mesh.model import Mesh
from policyd.policy.finding_model import Finding
from policyd.policy.findings import find
from policyd.policy.universe import Universe, universe_of

PAGE = 'Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-productpage"'


def universe(mesh: Mesh) -> Universe:
    """What there can be in a Mesh."""
    return universe_of(mesh, MeshEntities(mesh).content())


def findings_of(mesh: Mesh, schema: Schema, files: Mapping[str, str]) -> list[Finding]:
    """Everything found in policy files, and in the others beside them."""
    policies = {name: text for name, text in files.items() if name.endswith(".cedar")}
    return find(load_policies(policies, schema), schema, universe(mesh), files)


def policy(condition: str = "", scope: str = 'principal is Workload, action in Action::"http", resource') -> str:
    """One permit."""
    return f'@id("p")\npermit ({scope})\n{condition};\n'
