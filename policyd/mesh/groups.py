"""Operators' groups: members by short name become ids, and no group contains itself.

Law: a member that nothing declares is a Problem, so that a misspelt name never silently leaves someone out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar

from policyd.errors import Problem, SpiffeIdError
from policyd.mesh.declaration import Declaration
from policyd.mesh.files import GroupSpec
from policyd.mesh.matching import check_host, did_you_mean
from policyd.mesh.model import Group
from policyd.spiffe import SCHEME, SpiffeId


def build_groups(
    declaration: Declaration,
    trust_domain: str,
    workloads: Collection[SpiffeId],
    services: Collection[str],
    problems: list[Problem],
) -> dict[str, Group]:
    """Resolve the members of every group; `workloads` and `services` are those of the mesh."""
    specs = declaration.groups.groups
    resolver = _Resolver(declaration, trust_domain, workloads, services, problems)
    groups = {name: resolver.group(name, spec) for name, spec in specs.items()}
    for cycle in _cycles(specs):
        message = f"the group `{cycle[0]}` contains itself: {' > '.join(cycle)}"
        path = ("groups", cycle[-2], "groups")
        problems.append(declaration.groups_document.problem("reference", message, path, "take one of them out"))
    return groups


T = TypeVar("T")


class _Resolver:
    """Resolves members, and keeps the problems met on the way."""

    def __init__(
        self,
        declaration: Declaration,
        trust_domain: str,
        workloads: Collection[SpiffeId],
        services: Collection[str],
        problems: list[Problem],
    ) -> None:
        self._document = declaration.groups_document
        self._groups = declaration.groups.groups
        self._namespace = declaration.workloads.defaults.namespace
        self._trust_domain = trust_domain
        self._workloads, self._services, self._problems = workloads, services, problems

    def group(self, name: str, spec: GroupSpec) -> Group:
        return Group(
            name,
            workloads=frozenset(self._resolve(name, "workloads", spec.workloads, self._workload)),
            users=frozenset(self._resolve(name, "users", spec.users, _user)),
            hosts=frozenset(self._resolve(name, "hosts", spec.hosts, check_host)),
            services=frozenset(self._resolve(name, "services", spec.services, self._service)),
            operators=frozenset(self._resolve(name, "operators", spec.operators, _operator)),
            groups=frozenset(self._resolve(name, "groups", spec.groups, self._group)),
        )

    def _resolve(self, group: str, field: str, members: tuple[str, ...], resolve: Callable[[str], T]) -> Iterator[T]:
        for at, member in enumerate(members):
            try:
                yield resolve(member)
            except ValueError as error:
                message, _, remedy = str(error).partition("; ")
                path = ("groups", group, field, at)
                self._problems.append(self._document.problem("reference", message, path, remedy))

    def _workload(self, member: str) -> SpiffeId:
        try:
            if member.startswith(SCHEME):
                id_ = SpiffeId.parse(member)
            else:
                account, _, namespace = member.partition(".")
                id_ = SpiffeId.workload(self._trust_domain, namespace or self._namespace, account)
        except SpiffeIdError:
            raise ValueError(
                f"`{member[:80]}` is no workload; write `<service account>[.<namespace>]` or a SPIFFE ID"
            ) from None
        # another trust domain's workloads are declared there
        if id_.trust_domain == self._trust_domain and id_ not in self._workloads:
            accounts = [known.service_account or "" for known in self._workloads]
            raise ValueError(f"no instance has the identity `{member[:80]}`; {self._remedy(member, accounts)}")
        return id_

    def _service(self, member: str) -> str:
        id_ = member if "." in member else f"{member}.{self._namespace}"
        if id_ not in self._services:
            raise ValueError(f"no service is called `{member[:80]}`; {self._remedy(id_, self._services)}")
        return id_

    def _group(self, member: str) -> str:
        if member not in self._groups:
            raise ValueError(f"no group is called `{member[:80]}`; {self._remedy(member, self._groups)}")
        return member

    def _remedy(self, name: str, known: Collection[str]) -> str:
        return did_you_mean(name, known, self._problems) or "declare it or take it out"


def _user(member: str) -> str:
    issuer, slash, subject = member.rpartition("/")
    if not (issuer and slash and subject):
        raise ValueError(f"`{member[:80]}` is no user; write `<issuer>/<subject>`")
    return member


def _operator(member: str) -> str:
    via, colon, name = member.partition(":")
    if via not in ("unix", "oidc", "token") or not colon or not name or (via == "unix" and not name.isdecimal()):
        raise ValueError(
            f"`{member[:80]}` is no operator; write `unix:<uid>`, `oidc:<issuer>/<subject>` or `token:<name>`"
        )
    return member


def _cycles(groups: Mapping[str, GroupSpec]) -> Iterator[tuple[str, ...]]:
    """Find groups that contain themselves: walk down from each, without recursion, report each way back."""
    done: set[str] = set()
    for start in groups:
        trail: list[str] = []
        steps: list[Iterator[str]] = [iter((start,))]
        while steps:
            name = next(steps[-1], None)
            if name is None:
                steps.pop()
                if trail:
                    done.add(trail.pop())
            elif name in trail:
                yield (*trail[trail.index(name) :], name)
            elif name in groups and name not in done:
                trail.append(name)
                steps.append(iter(groups[name].groups))
