"""Policies that can never match, because of what the mesh has: a warning of `policyd check`.

Law: pure; only a scope that names one entity is looked at, so that what is warned of is sure.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from cedarpy import pst

from policyd.cedar.model import Uid
from policyd.cedar.policies import Policy, PolicySet
from policyd.cedar.syntax_tree import uid_of
from policyd.errors import Problem, SpiffeIdError
from policyd.mesh.model import Mesh
from policyd.spiffe import SpiffeId


def never_matching(mesh: Mesh, policies: PolicySet) -> list[Problem]:
    """Return a warning for each policy whose only caller or only resource never occurs, in the policies' order."""
    return [
        Problem("never_matches", f"`{policy.id}` never matches: {why}", policy.file, policy.line, remedy=remedy)
        for policy in policies.policies
        for why, remedy in _reasons(mesh, policy)
    ]


def _reasons(mesh: Mesh, policy: Policy) -> Iterator[tuple[str, str]]:
    match policy.tree.resource:
        case pst.ScopeEq(entity) if not isinstance(entity, pst.Slot):
            yield from _service(mesh, uid_of(entity))
        case _:
            pass
    match policy.tree.principal:
        case pst.ScopeEq(entity) if not isinstance(entity, pst.Slot):
            yield from _workload(mesh, uid_of(entity))
        case _:
            pass


def _service(mesh: Mesh, uid: Uid) -> Iterator[tuple[str, str]]:
    if uid.type != "Service":
        return
    if uid.id not in mesh.services:
        yield f"there is no service `{uid.id}`", _nearest(uid.id, mesh.services)
        return
    decided_as = {listener.service for listener in mesh.listeners.values()}
    instances = mesh.instances_of(uid.id)
    if uid.id not in decided_as and instances:
        others = sorted({instance.service for instance in instances})
        listed = " or ".join(f"`{other}`" for other in others)
        yield (
            f"requests to `{uid.id}` are decided as requests to {listed}, with which it shares a port",
            (f"write the policy for {listed}"),
        )


def _workload(mesh: Mesh, uid: Uid) -> Iterator[tuple[str, str]]:
    if uid.type != "Workload":
        return
    try:
        spiffe_id = SpiffeId.parse(uid.id)
    except SpiffeIdError as error:
        yield error.message, error.remedy
        return
    if spiffe_id.trust_domain == mesh.trust_domain and spiffe_id not in mesh.workloads:
        yield f"there is no workload `{uid.id}`", _nearest(uid.id, map(str, mesh.workloads))


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), 1)
    return f"did you mean `{near[0]}`?" if near else "declare it, or remove the policy"
