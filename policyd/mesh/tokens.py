"""RequestAuthentications against the mesh: which issuers each instance believes, and the keys that prove them.

Law: at an instance an issuer has one rule, and no two issuers of a mesh can name the same user. Keys that are fetched
may be missing: tokens of their issuer are refused until they are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from policyd.errors import Problem
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.istio.request_authentication import JwtRule, RequestAuthentication
from policyd.mesh.jwks import parse_jwks
from policyd.mesh.model import Instance
from policyd.mesh.protocols import takes_requests
from policyd.mesh.selection import check_names, check_selects, holds_for

KIND: Final = "RequestAuthentication"


@dataclass(frozen=True, slots=True)
class Believed:
    """A rule that holds at an instance; `name` is its own among all rules of the mesh."""

    name: str
    rule: JwtRule


def rules_of(resources: Iterable[RequestAuthentication], instance: Instance) -> tuple[Believed, ...]:
    """The rules that hold at an instance, by name."""
    found = [
        Believed(f"{one.id}/{at}", rule)
        for one in resources
        if holds_for(one, one.spec.selector.match_labels, instance)
        for at, rule in enumerate(one.spec.jwt_rules)
    ]
    return tuple(sorted(found, key=lambda one: one.name))


def issuers_of(resources: Iterable[RequestAuthentication], instance: Instance) -> dict[str, frozenset[str]]:
    """The issuers that an instance believes, and of each the claims that are words with spaces between them."""
    return {one.rule.issuer: one.rule.split_claims for one in rules_of(resources, instance)}


def fetched(resources: Iterable[RequestAuthentication]) -> dict[str, float]:
    """The URIs that keys are to be fetched from, and how many seconds each may take."""
    found: dict[str, float] = {}
    for rule in (rule for one in resources for rule in one.spec.jwt_rules):
        if (uri := rule.fetched) is not None:
            found[uri] = max(rule.timeout, found.get(uri, 0.0))
    return found


def build_key_sets(
    declaration: Declaration, instances: Mapping[str, Instance], problems: list[Problem]
) -> dict[str, str]:
    """Return the key sets that rules refer to, by file or URI, as far as they are there; check all rules."""
    declared = declaration.of(RequestAuthentication)
    check_names(declared, KIND, problems)
    for one in declared:
        labels = one.resource.spec.selector.match_labels
        selected = [instance for instance in instances.values() if holds_for(one.resource, labels, instance)]
        path = ("spec", "selector") if labels else ("metadata",)
        check_selects(one, KIND, selected, path, problems)
        if selected and not any(_takes_requests(instance) for instance in selected):
            message = f"the {KIND} `{one.resource.id}` is for connections only, which carry no token"
            problems.append(
                one.problem("reference", message, path, "select workloads that take requests, or remove it")
            )
    _check_once(declared, instances, problems)
    _check_apart(declared, problems)
    return {uri: keys for one in declared for uri, keys in _keys(one, declaration.key_sets, problems)}


def _takes_requests(instance: Instance) -> bool:
    return instance.role == "gateway" or any(takes_requests(port.protocol) for port in instance.ports)


def _keys(
    declared: Declared[RequestAuthentication], texts: Mapping[str, str], problems: list[Problem]
) -> Iterator[tuple[str, str]]:
    for at, rule in enumerate(declared.resource.spec.jwt_rules):
        if rule.jwks is not None:
            continue
        path = ("spec", "jwtRules", at, "jwksUri" if rule.jwks_uri else "issuer")
        text = texts.get(rule.source)
        if text is None:
            if rule.fetched is None:
                message = f"there is no file `{rule.source}`"
                problems.append(declared.problem("reference", message, path, "write it, or correct the name"))
            continue
        try:
            yield rule.source, parse_jwks(text)
        except ValueError as error:
            message, _, remedy = str(error).partition("; ")
            problems.append(declared.problem("jwks", f"`{rule.source}`: {message}", path, remedy))


def _check_once(
    resources: Iterable[Declared[RequestAuthentication]], instances: Mapping[str, Instance], problems: list[Problem]
) -> None:
    """Of two rules for one issuer only one could be asked, whichever the token was meant for."""
    told: set[tuple[str, int]] = set()
    for instance in instances.values():
        first: dict[str, str] = {}
        for declared in resources:
            if not holds_for(declared.resource, declared.resource.spec.selector.match_labels, instance):
                continue
            for at, rule in enumerate(declared.resource.spec.jwt_rules):
                here = f"{declared.resource.id}/{at}"
                other = first.setdefault(rule.issuer, here)
                if other == here or (declared.resource.id, at) in told:
                    continue
                told.add((declared.resource.id, at))
                where = other.rpartition("/")[0]
                message = f"the issuer `{rule.issuer}` has a rule for `{instance.name}` already, in `{where}`"
                path = ("spec", "jwtRules", at, "issuer")
                problems.append(declared.problem("duplicate", message, path, "make one rule of both"))


def _check_apart(resources: Iterable[Declared[RequestAuthentication]], problems: list[Problem]) -> None:
    """A user is `<issuer>/<subject>`: where one issuer's name begins with another's, one could name the other's."""
    issuers = {rule.issuer for declared in resources for rule in declared.resource.spec.jwt_rules}
    for declared in resources:
        for at, rule in enumerate(declared.resource.spec.jwt_rules):
            outer = next((one for one in sorted(issuers) if rule.issuer.startswith(f"{one}/")), None)
            if outer is not None:
                message = f"users of `{outer}` could be taken for users of `{rule.issuer}`"
                remedy = "no issuer's name may begin with another's and a slash; take one out"
                problems.append(declared.problem("issuer", message, ("spec", "jwtRules", at, "issuer"), remedy))
