"""Where requests are decided: one listener, and what is known of them before they come.

Law: the entities are the ruling's own. Of the caller nothing is known but that its certificate was verified; whatever a
policy asks of it becomes a question to the certificate.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from policyd.authz.context import HEADERS, METHODS, action_of
from policyd.authz.entities import MeshEntities
from policyd.authz.ruling import Ruling
from policyd.cedar.model import ANONYMOUS, Entity, Uid
from policyd.cedar.reads import USER
from policyd.cedar.schema import Schema
from policyd.errors import NotCompilable, SpiffeIdError
from policyd.local import expressions, texts, users
from policyd.local.logic import CALLER, HOST, METHOD, NO, PATH, YES, Formula, OfUser, every, negated
from policyd.local.values import (
    Case,
    Cases,
    Range,
    Text,
    Unknown,
    Value,
    caller_is,
    caller_matches,
    failing,
    method_in,
)
from policyd.mesh.model import Instance, Listener, Mesh
from policyd.mesh.protocols import takes_connections
from policyd.names import SNI_HEADER
from policyd.spiffe import SpiffeId

_ACTIONS = {str(action_of(method).id): method for method in METHODS}
_CALLER_ATTRIBUTES = ("trust_domain", "path", "namespace", "service_account")


@dataclass(frozen=True, slots=True)
class Known:
    """What a ruling knows of everybody, found once for all its listeners."""

    mesh: Mesh
    schema: Schema
    entities: MeshEntities
    workloads: Mapping[Uid, Entity] = field(init=False)
    members: Mapping[Uid, frozenset[str]] = field(init=False)  # of groups: the identities in them,
    users: Mapping[Uid, frozenset[str]] = field(init=False)  # and the end users

    def __post_init__(self) -> None:
        """Look through what was declared."""
        workloads: dict[Uid, Entity] = {}
        found: dict[str, dict[Uid, set[str]]] = {"Workload": {}, "User": {}}
        for entity in self.entities.content():
            members = found.get(entity.uid.type)
            if members is None:
                continue
            if entity.attrs:
                workloads[entity.uid] = entity
            for above in entity.parents:
                members.setdefault(above, set()).add(entity.uid.id)
        object.__setattr__(self, "workloads", workloads)
        for name, members in (("members", found["Workload"]), ("users", found["User"])):
            object.__setattr__(self, name, {uid: frozenset(ids) for uid, ids in members.items()})


def known_of(ruling: Ruling) -> Known:
    """What a ruling knows."""
    return Known(ruling.mesh, ruling.schema, ruling.entities)


class Place:
    """One listener. Raises NotCompilable for whatever cannot be told there."""

    def __init__(self, known: Known, listener: Listener, instance: Instance) -> None:
        self.known = known
        self.listener = listener
        self.instance = instance
        service = known.entities.service(listener.service)
        if service is None:
            raise NotCompilable(f"the mesh has no service `{listener.service}`")
        self.resource = service
        self.labels = known.entities.labels(listener.instance)
        self.principal: Value = Unknown.CALLER if listener.verifies_peers else ANONYMOUS
        self.connects = takes_connections(listener.protocol)

    # ---- attributes

    def attribute(self, chain: tuple[str, ...]) -> Cases:
        """What an attribute of a variable is."""
        match chain:
            case ("principal",):
                return [(YES, self.principal)]
            case ("resource",):
                return [(YES, self.resource.uid)]
            case ("action",):
                return [(YES, Unknown.ACTION)]
            case ("context", "user"):
                return [(self._is_user(), Unknown.USER), (negated(self._is_user()), Unknown.FAILED)]
            case ("context", "sni"):
                return self._name()
            case ("context", *path):
                return [(YES, self._context(".".join(path)))]
            case _:
                raise NotCompilable(f"`{'.'.join(chain)}`")

    def _is_user(self) -> Formula:
        """Whether the request has a token, and with it a user."""
        return users.IS_ONE if self.listener.issuers and not self.connects else NO

    def _name(self) -> Cases:
        """What TLS in a tunnel is for: what a gateway says that its client asked for, or the tunnel's own name."""
        if self.listener.protocol != "tls":
            return [(YES, Unknown.FAILED)]
        said, nameless = texts.NAME_SAID, every(negated(texts.NAME_SAID), texts.NO_HOST)
        own = every(negated(said), negated(texts.NO_HOST))
        return [(said, Text(SNI_HEADER, "sni")), (own, Text(HOST, "sni")), (nameless, Unknown.FAILED)]

    def _context(self, path: str) -> Value:
        requests: dict[str, Value] = {
            "request.method": Text(METHOD, "method"),
            "request.host": Text(HOST, "host"),
            "request.path": Text(PATH, "path"),
            "request.segments": Unknown.SEGMENTS,
            "request.headers": Unknown.HEADERS,
        }
        known: dict[str, Value] = {
            **({} if self.connects else requests),
            "source.port": Unknown.SOURCE_PORT,
            "destination.port": self.listener.port,
            "destination.labels": self.labels.uid,
        }
        if path == "client_ip" and self.listener.trusted_proxies:
            raise NotCompilable("the client that proxies in front tell of")
        if path in ("source.ip", "client_ip", "destination.ip"):
            own = self._own_address()
            return own if path == "destination.ip" else Unknown.SOURCE
        if path not in known:
            raise NotCompilable(f"`context.{path}`")
        return known[path]

    def _own_address(self) -> Range:
        """Where connections arrive; raises NotCompilable where that, or who comes, may be of another kind."""
        served = next((one for one in self.instance.ports if one.service_port == self.listener.port), None)
        text = (served.bind if served is not None else "") or self.instance.address
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise NotCompilable(f"an address at a listener of `{text}`") from None
        if address.version != 4 or address.is_unspecified:
            raise NotCompilable(f"an address at a listener of `{text}`")
        return Range(str(address), address.max_prefixlen)

    def has(self, chain: tuple[str, ...]) -> Formula:
        """Whether there is such an attribute."""
        match chain:
            case ("principal", name) if self.principal is Unknown.CALLER:
                return self._caller_has(name)
            case ("principal", *_):
                return NO
            case ("resource", name):
                return YES if name in self.resource.attrs else NO
            case ("context", "user", *inner):
                return NO if inner and inner not in (["issuer"], ["subject"]) else self._is_user()
            case ("context", "sni"):
                return negated(failing(self._name()))
            case ("context", *path):
                return self._context_has(".".join(path))
            case _:
                raise NotCompilable(f"`has` of `{'.'.join(chain)}`")

    def _context_has(self, path: str) -> Formula:
        if path.partition(".")[0] in ("request", "client_ip") and self.connects:
            return NO
        whole = ("request", "source", "destination", "client_ip", "time")
        inner = ("request.method", "request.host", "request.path", "request.segments", "request.headers")
        ends = ("source.ip", "source.port", "destination.ip", "destination.port", "destination.labels")
        if path not in (*whole, *inner, *ends):
            raise NotCompilable(f"`has` of `context.{path}`")
        return YES

    def _caller_has(self, name: str) -> Formula:
        if name not in _CALLER_ATTRIBUTES:
            return NO
        return YES if name in ("trust_domain", "path") else self._has_account()

    def _has_account(self) -> Formula:
        return caller_matches(f"{self._domain()}/ns/[^/]+/sa/[^/]+", "caller is a service account")

    def _domain(self) -> str:
        return expressions.quoted(f"spiffe://{self.known.mesh.trust_domain}")

    def attribute_of(self, value: Value, name: str) -> list[Case]:
        """An attribute of an entity."""
        domain = self.known.mesh.trust_domain
        match value, name:
            case Unknown.CALLER, "trust_domain":
                return [(YES, domain)]
            case Unknown.CALLER, "path":
                return [(YES, Text(CALLER, "principal.path", "path", domain))]
            case Unknown.CALLER, "namespace" | "service_account":
                found = Text(CALLER, f"principal.{name}", name, domain)
                return [(self._has_account(), found), (negated(self._has_account()), Unknown.FAILED)]
            case Unknown.USER, "issuer" | "subject":
                return [(YES, Text(OfUser((name,)), f"user.{name}"))]
            case Uid(), _:
                attrs = self.entity(value).attrs
                return [(YES, attrs.get(name, Unknown.FAILED))]
            case _:
                raise NotCompilable(f"the attribute `{name}`")

    # ---- entities

    def entity(self, uid: Uid) -> Entity:
        """An entity that a policy speaks of; raises NotCompilable where the mesh has none such."""
        if uid == self.resource.uid:
            return self.resource
        if uid == self.labels.uid:
            return self.labels
        if uid == ANONYMOUS:
            return Entity(ANONYMOUS)
        found = self.known.entities.named(uid) if uid.type in ("Workload", "Service") else None
        if found is None:
            raise NotCompilable(f"what the mesh does not know, `{uid}`")
        return found

    def is_in(self, value: Value, group: Uid) -> Formula:
        """Cedar's `in` of one ancestor."""
        match value:
            case Unknown.CALLER:
                return self._caller_in(group)
            case Unknown.ACTION:
                return self._action_in(group)
            case Unknown.USER:
                return self.user_equals(group) if group.type == "User" else users.user_is(self._users_in(group))
            case Uid() if value == group:
                return YES
            case Uid():
                return YES if group in self.entity(value).parents else NO
            case _:
                raise NotCompilable("a place in a hierarchy")

    def _caller_in(self, group: Uid) -> Formula:
        match group.type:
            case "Workload":
                return self.caller_equals(group)
            case "TrustDomain":
                return YES if group.id == self.known.mesh.trust_domain else NO
            case "Namespace":
                return self._caller_in_namespace(group.id)
            case _:
                return caller_is(self.known.members.get(group, ()))

    def _caller_in_namespace(self, name: str) -> Formula:
        try:
            SpiffeId.workload(self.known.mesh.trust_domain, name, "x")
        except SpiffeIdError:
            return NO
        if "/" in name:
            return NO
        expression = f"{self._domain()}/ns/{expressions.quoted(name)}/sa/[^/]+"
        return caller_matches(expression, f"caller in namespace {name}")

    def caller_equals(self, uid: Uid) -> Formula:
        """Whether the caller is a certain entity."""
        if uid.type != "Workload":
            return NO
        try:
            id_ = SpiffeId.parse(uid.id)
        except SpiffeIdError:
            return NO
        return caller_is([uid.id]) if id_.trust_domain == self.known.mesh.trust_domain and id_.path else NO

    def _users_in(self, group: Uid) -> frozenset[str]:
        return self.known.users.get(group, frozenset())

    def user_equals(self, uid: Uid) -> Formula:
        """Whether the end user is a certain entity."""
        return users.user_is([uid.id]) if uid.type == "User" else NO

    def _action_in(self, group: Uid) -> Formula:
        above = self.known.schema.actions
        return self._methods(one.id for one in self._own_actions() if one == group or group in above.get(one, ()))

    def action_equals(self, uid: Uid) -> Formula:
        """Whether the action is a certain one."""
        return self._methods(one.id for one in self._own_actions() if one == uid)

    def _own_actions(self) -> Iterator[Uid]:
        names = ("connect",) if self.connects else (*sorted(_ACTIONS), "other")
        yield from (Uid("Action", name) for name in names)

    def _methods(self, names: Iterator[str]) -> Formula:
        """Every method that is none of the schema's is `other`."""
        found = frozenset(names)
        if self.connects:
            return YES if found else NO
        known = frozenset(_ACTIONS)
        if "other" not in found:
            return method_in(found)
        return negated(method_in(known - found)) if known - found else YES

    def is_a(self, value: Value, type_: str) -> Formula:
        """Cedar's `is`."""
        match value:
            case Unknown.CALLER:
                own = "Workload"
            case Unknown.ACTION:
                own = "Action"
            case Unknown.USER:
                own = USER
            case Unknown.HEADERS:
                own = HEADERS.type
            case Uid():
                own = value.type
            case _:
                raise NotCompilable("the type of what is no entity")
        return YES if own == type_ else NO

    # ---- tags

    def tagged(self, name: str) -> dict[str, frozenset[str]]:
        """The values that a label of callers has, each with who bears it."""
        found: dict[str, set[str]] = {}
        for uid, entity in self.known.workloads.items():
            if name in entity.tags:
                found.setdefault(entity.tags[name], set()).add(uid.id)
        return {value: frozenset(ids) for value, ids in sorted(found.items())}
