"""PeerAuthentications against the mesh: how callers reach each sidecar, by mutual TLS, in plain text, or both.

Law: the narrowest level that says something has the word: port, workload, namespace, mesh. Where nobody says anything
it is STRICT. Plain text has a listener of its own, so that nobody who comes in by it is ever taken for a workload.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from policyd.errors import Problem
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.istio.peer_authentication import PeerAuthentication
from policyd.mesh.levels import NARROWEST_FIRST, Alone, Level, level_of
from policyd.mesh.model import Instance, Listener, PeerMode, Served, inbound_listener, plaintext_listener
from policyd.mesh.selection import check_names, check_selects, holds_for

KIND: Final = "PeerAuthentication"
DEFAULT: Final[PeerMode] = "STRICT"


def peer_mode(resources: Iterable[PeerAuthentication], instance: Instance, port: int) -> PeerMode:
    """How callers reach a port of an instance (the workload's own, as workloads.yaml has it)."""
    by_level = {level(one): one.spec for one in resources if _holds(one, instance)}
    workload = by_level.get("workload")
    said = [workload.port_level_mtls[str(port)]] if workload and str(port) in workload.port_level_mtls else []
    said += [by_level[name].mtls for name in NARROWEST_FIRST if name in by_level]
    for one in said:
        if one.mode != "UNSET":
            return one.mode
    return DEFAULT


def level(resource: PeerAuthentication) -> Level:
    """Whom a PeerAuthentication is for."""
    return level_of(resource, names_workloads=bool(resource.spec.selector.match_labels))


def with_peers(
    declaration: Declaration, instances: Mapping[str, Instance], problems: list[Problem]
) -> dict[str, Instance]:
    """The instances, each with its mode; check what is declared."""
    declared = declaration.of(PeerAuthentication)
    check_names(declared, KIND, problems)
    _check(declared, instances, problems)
    resources = [one.resource for one in declared]
    return {
        name: dataclasses.replace(
            instance, ports=tuple(_with_mode(resources, instance, port) for port in instance.ports)
        )
        if resources and instance.role == "sidecar"
        else instance
        for name, instance in instances.items()
    }


def _with_mode(resources: Iterable[PeerAuthentication], instance: Instance, port: Served) -> Served:
    return dataclasses.replace(port, peers=peer_mode(resources, instance, port.number))


def listeners_of(instance: Instance, issuers: Mapping[str, frozenset[str]]) -> Iterator[Listener]:
    """Where a sidecar is asked for its application."""
    for port in instance.ports:
        own = (instance.name, instance.workload, instance.service, port.service_port)
        names = ([(inbound_listener(instance, port), True)] if port.peers != "DISABLE" else []) + (
            [(plaintext_listener(instance, port), False)] if port.peers != "STRICT" else []
        )
        for name, verifies in names:
            yield Listener(name, "inbound", *own, verifies_peers=verifies, issuers=issuers, protocol=port.protocol)


def _holds(resource: PeerAuthentication, instance: Instance) -> bool:
    return instance.role == "sidecar" and holds_for(resource, resource.spec.selector.match_labels, instance)


def _check(
    declared: Iterable[Declared[PeerAuthentication]], instances: Mapping[str, Instance], problems: list[Problem]
) -> None:
    """Each holds for somebody, alone on its level, and names ports that are there."""
    alone = Alone(KIND, level)
    for one in declared:
        selected = [instance for instance in instances.values() if _holds(one.resource, instance)]
        labels = one.resource.spec.selector.match_labels
        check_selects(one, KIND, selected, ("spec", "selector") if labels else ("metadata",), problems)
        alone.check(one, selected, problems)
        for port in one.resource.spec.port_level_mtls:
            known = sorted({port.number for instance in selected for port in instance.ports})
            if selected and int(port) not in known:
                message = f"none of the selected workloads has port {port}"
                remedy = f"they have {', '.join(map(str, known))} (`port` of workloads.yaml)"
                problems.append(one.problem("reference", message, ("spec", "portLevelMtls", port), remedy))
