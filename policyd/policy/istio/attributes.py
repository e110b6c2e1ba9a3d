"""The fields of `from`, `to` and `when`, each with what it becomes: one table, so that a key of `when` means what its
field means.

Law: a key that no table has is refused by name; so is what a request has no attribute for here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from policyd.policy.istio import identity, request, user
from policyd.policy.istio.expression import FALSE, Test
from policyd.policy.istio.field import Field, Place
from policyd.policy.istio.model import Condition, Operation, Source
from policyd.policy.istio.path import Canonical, paths

# the schema's own actions of HTTP; any other method is `Action::"other"`
METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")

_HEADER = re.compile(r"request\.headers\[(.+)\]")
_CLAIM = re.compile(r"request\.auth\.claims\[(.+)\]")


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a rule depends on besides the rule.

    `gateways_only`: the policy selects gateways alone, `namespace` is the policy's own, `hosts_without_port` what the
    importer was told.
    """

    domains: identity.TrustDomains
    canonical: Canonical
    namespace: str
    gateways_only: bool
    hosts_without_port: bool


Make = Callable[[Sequence[str], Reading, Place], Test]


@dataclass(frozen=True, slots=True)
class _Attribute:
    make: Make
    identity: bool = False


def _principals(values: Sequence[str], reading: Reading, place: Place) -> Test:
    return identity.principals(values, reading.domains, place)[0]


def _remote(values: Sequence[str], reading: Reading, place: Place) -> Test:
    if not reading.gateways_only:
        message = "a sidecar learns the client's address from x-forwarded-for, which `context.client_ip` does not read"
        place.refuse(message, "select the gateway, or use the address of the connection (`ipBlocks`, `source.ip`)")
    return request.addresses("context.client_ip", values, place)


_PRINCIPALS: Final = _Attribute(_principals, identity=True)
_NAMESPACES: Final = _Attribute(lambda values, _, place: identity.namespaces(values, place), identity=True)
_ACCOUNTS: Final = _Attribute(
    lambda values, reading, place: identity.service_accounts(values, reading.namespace, place), identity=True
)
_DOMAINS: Final = _Attribute(
    lambda values, reading, place: identity.trust_domains(values, reading.domains, place), identity=True
)
_USERS: Final = _Attribute(lambda values, _, place: user.request_principals(values, place))
_ADDRESSES: Final = _Attribute(lambda values, _, place: request.addresses("context.source.ip", values, place))
_REMOTE: Final = _Attribute(_remote)
_PORTS: Final = _Attribute(lambda values, _, place: request.ports(values, place))

SOURCE: Final[Mapping[str, _Attribute]] = {
    "principals": _PRINCIPALS,
    "namespaces": _NAMESPACES,
    "serviceAccounts": _ACCOUNTS,
    "trustDomains": _DOMAINS,
    "requestPrincipals": _USERS,
    "ipBlocks": _ADDRESSES,
    "remoteIpBlocks": _REMOTE,
}
OPERATION: Final[Mapping[str, _Attribute]] = {
    "hosts": _Attribute(lambda values, reading, place: request.hosts(values, reading.hosts_without_port, place)),
    "ports": _PORTS,
    "methods": _Attribute(lambda values, _, place: request.methods(values, place)),
    "paths": _Attribute(lambda values, reading, place: paths(values, reading.canonical, place)),
}
WHEN: Final[Mapping[str, _Attribute]] = {
    "source.principal": _PRINCIPALS,
    "source.namespace": _NAMESPACES,
    "source.serviceAccount": _ACCOUNTS,
    "source.trustDomain": _DOMAINS,
    "source.ip": _ADDRESSES,
    "remote.ip": _REMOTE,
    "request.auth.principal": _USERS,
    "request.auth.audiences": _Attribute(lambda values, _, place: user.claim("aud", values, place)),
    "request.auth.presenter": _Attribute(lambda values, _, place: user.claim("azp", values, place)),
    "destination.ip": _Attribute(lambda values, _, place: request.addresses("context.destination.ip", values, place)),
    "destination.port": _PORTS,
}


def source_fields(source: Source, reading: Reading, place: Place) -> list[Field]:
    """Read the fields of a source."""
    given = source.model_dump(by_alias=True)
    fields = list(_fields(SOURCE, given, reading, place))
    if source.principals and fields:
        quiet = Place(place.declared)  # what is wrong with them has been told
        caller = identity.principals(source.principals, reading.domains, quiet)[1]
        fields[0] = Field(fields[0].wanted, fields[0].unwanted, identity=True, caller=caller)
    return fields


def operation_fields(operation: Operation, reading: Reading, place: Place) -> list[Field]:
    """Read the fields of an operation."""
    given = operation.model_dump(by_alias=True)
    fields = []
    for name, field in zip(_given(OPERATION, given), _fields(OPERATION, given, reading, place), strict=True):
        plain = name == "methods" and all(method in METHODS for method in operation.methods)
        known = tuple(method for method in METHODS if method in operation.methods) if plain else ()
        fields.append(Field(field.wanted, field.unwanted, methods=known))
    return fields


def condition_field(condition: Condition, reading: Reading, place: Place) -> Field:
    """Read a condition."""
    found = _condition(condition.key, place)
    if found is None:
        return Field()
    wanted = found.make(condition.values, reading, place.at("values")) if condition.values else None
    unwanted = found.make(condition.not_values, reading, place.at("notValues")) if condition.not_values else FALSE
    return Field(wanted, unwanted, found.identity)


def _given(table: Mapping[str, _Attribute], given: Mapping[str, Sequence[str]]) -> list[str]:
    return [name for name in table if given[name] or given[_not(name)]]


def _not(name: str) -> str:
    return f"not{name[0].upper()}{name[1:]}"


def _fields(
    table: Mapping[str, _Attribute], given: Mapping[str, Sequence[str]], reading: Reading, place: Place
) -> Iterator[Field]:
    for name in _given(table, given):
        make, identified = table[name].make, table[name].identity
        values, others = given[name], given[_not(name)]
        wanted = make(values, reading, place.at(name)) if values else None
        unwanted = make(others, reading, place.at(_not(name))) if others else FALSE
        yield Field(wanted, unwanted, identified)


def _condition(key: str, place: Place) -> _Attribute | None:
    if key in WHEN:
        return WHEN[key]
    if found := _HEADER.fullmatch(key):
        name = found[1]
        return _Attribute(lambda values, _, at: request.header(name, values, at))
    if found := _CLAIM.fullmatch(key):
        return _claim(found[1], place)
    message, remedy = f"`{key[:120]}` is no key that Istio knows", "correct it; Istio would skip the rule"
    if key == "connection.sni":
        message, remedy = "an HTTP request has no SNI here", "decide on the host, `hosts`"
    elif key.startswith("experimental.envoy.filters."):
        message, remedy = f"`{key[:120]}`: policies see no metadata of Envoy's filters", "decide on what a request has"
    place.at("key").refuse(message, remedy)
    return None


def _claim(name: str, place: Place) -> _Attribute | None:
    if "[" in name or "]" in name:
        place.at("key").refuse("a claim inside a claim is no tag of the user", "decide on a claim at the top")
        return None
    return _Attribute(lambda values, _, at: user.claim(name, values, at))
