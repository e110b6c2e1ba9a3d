"""What an agent may obtain, and so which sidecars it runs, and which processes it may vouch for.

Law: an agent gets identities of declared workloads only, and only those that its registration names;
without any named it may run the whole mesh, and runs what no other agent's names. No agent gets another agent's
identity, nor policyd's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policyd.ca.entries import Entry, entry_of_instance
from policyd.mesh.model import Instance, Mesh
from policyd.spiffe import SpiffeId


@dataclass(frozen=True, slots=True)
class Registration:
    """An agent and the identities that it may obtain; none named means all of the mesh."""

    agent: str
    workloads: frozenset[SpiffeId] = frozenset()


def may_obtain(registration: Registration, identity: SpiffeId, mesh: Mesh) -> bool:
    """May this agent have a certificate for `identity`? Its own identity is not asked about here."""
    if identity not in mesh.workloads or identity.trust_domain != mesh.trust_domain:
        return False
    if identity.agent_name is not None or identity.is_policyd:
        return False
    return not registration.workloads or identity in registration.workloads


def instances_for(registration: Registration, mesh: Mesh, agents: Iterable[Registration] = ()) -> tuple[Instance, ...]:
    """The instances whose Envoys this agent runs, by name; `agents` are all that have joined."""
    named = {identity for other in agents if other.agent != registration.agent for identity in other.workloads}
    elsewhere = frozenset() if registration.workloads else named
    ordered = (instance for _, instance in sorted(mesh.instances.items()) if instance.workload not in elsewhere)
    return tuple(instance for instance in ordered if may_obtain(registration, instance.workload, mesh))


def entries_for(
    registration: Registration, mesh: Mesh, agents: Iterable[Registration], entries: Iterable[Entry]
) -> tuple[Entry, ...]:
    """Which processes on this agent's machine are which workload: those of its instances, and those of `entries`."""
    own = [entry_of_instance(one.name, one.workload) for one in instances_for(registration, mesh, agents)]
    of_processes = (entry for entry in entries if entry.evidence == "unix")  # an agent vouches for nothing else
    return (*own, *(entry for entry in of_processes if may_obtain(registration, entry.spiffe_id, mesh)))
