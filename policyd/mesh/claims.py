"""Routes by the claims of a token, in the header matches of VirtualServices (`@request.auth.claims.…`).

Law: claims are known where tokens are verified before a route is chosen, which is at gateways; a rule that could never
see one is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from policyd.errors import Problem
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.edges import selects
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.matches import HttpMatch
from policyd.mesh.istio.request_authentication import RequestAuthentication
from policyd.mesh.istio.virtual_service import MESH, VirtualService
from policyd.mesh.model import Instance
from policyd.mesh.tokens import rules_of

AT_GATEWAYS: Final = "a sidecar chooses a route before it knows a token; write `gateways` without `mesh`"
NOBODY: Final = "write a RequestAuthentication whose selector its labels have, or take the match out"


def check_claims(declaration: Declaration, instances: Mapping[str, Instance], problems: list[Problem]) -> None:
    """Each match by claims is for gateways that verify tokens."""
    believed = [one.resource for one in declaration.of(RequestAuthentication)]
    deaf = {
        gateway.resource.id
        for gateway in declaration.of(Gateway)
        for one in instances.values()
        if selects(gateway.resource, one) and not rules_of(believed, one)
    }
    virtuals = declaration.of(VirtualService)
    for declared in virtuals:
        bound = _bound(declared.resource, (one.resource for one in virtuals))
        for path, match in declared.resource.matches():
            if not isinstance(match, HttpMatch) or not match.claims:
                continue
            where = {declared.resource.gateway_id(name) for name in match.gateways} or bound
            problems += _problems(declared, (*path, "headers"), where, deaf)


def _bound(virtual: VirtualService, all_: Iterable[VirtualService]) -> set[str]:
    """The gateways that a VirtualService is for; of one that others delegate to, theirs."""
    if not virtual.is_delegate:
        return {virtual.gateway_id(name) for name in virtual.spec.gateways}
    return {
        root.gateway_id(name)
        for root in all_
        for rule in root.spec.http
        if rule.delegate and (rule.delegate.namespace or root.namespace, rule.delegate.name)
        == (virtual.namespace, virtual.name)
        for name in root.spec.gateways
    }  # fmt: skip


def _problems(
    declared: Declared[VirtualService], path: tuple[str | int, ...], where: set[str], deaf: set[str]
) -> Iterator[Problem]:
    if MESH in where:
        yield declared.problem("reference", "the claims of a token are matched at gateways only", path, AT_GATEWAYS)
    for id_ in sorted(where & deaf):
        yield declared.problem("reference", f"nobody verifies tokens at the gateway `{id_}`", path, NOBODY)
