"""Which sidecars decide by themselves: what Enforcements want, as far as it is exact and its records may come later.

Law: `local` that cannot be is a Problem, never less than it says; `auto` that cannot be is central, and why is known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from policyd.authz.ruling import Ruling
from policyd.errors import Problem
from policyd.local import expressions, users
from policyd.local.compile import Compiled, Compiler
from policyd.local.envoy import rbac
from policyd.local.known import is_sent
from policyd.local.replies import identified, mappers
from policyd.local.told import why_left
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.enforcements import enforcement_of
from policyd.mesh.istio.enforcement import DEFAULT_SAMPLE, Enforcement
from policyd.mesh.model import Listener, Mesh
from policyd.mesh.protocols import takes_connections, takes_requests
from policyd.mesh.selection import holds_for
from policyd.names import SNI_HEADER
from policyd.spiffe import SpiffeId
from policyd.xds.resources.model import Switch

DISTRUSTED: Final = (
    "policyd decided otherwise about a request of the sample, or its sidecar told nothing of its decisions"
)
LATER: Final = "its records would come after the fact, and `audit.durability` is `{}`"
ACCEPT: Final = "accept that by `durability: async` of the Enforcement, or write `enforcement: central`"
SIDECARS: Final = "a gateway has many routes, and an Enforcement moves the one of a sidecar's listener"
LEAVE: Final = "leave it, or name the sidecars that are meant in `selector`"
# what gateways say of names, if anything: what may be no name is left to policyd
PLAIN_NAMES: Final = (
    {
        "name": SNI_HEADER,
        "string_match": {"safe_regex": {"regex": expressions.PLAIN_NAME}},
        "treat_missing_header_as_empty": True,
    },
)
CHANGE: Final = "change what prevents it, or write `enforcement: auto`, which is central there"


@dataclass(frozen=True, slots=True)
class Enforced:
    """What Enforcements come to: `switches` by listener, and of those that are to be local and are not `why`.

    `by` are the names of the Enforcements (ids) that hold at listeners.
    """

    switches: Mapping[str, Switch] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)
    by: Mapping[str, str] = field(default_factory=dict)
    compiled: Mapping[str, Compiled] = field(default_factory=dict, repr=False, compare=False)
    compiler: Compiler | None = field(default=None, repr=False, compare=False)

    @property
    def local(self) -> tuple[str, ...]:
        """The listeners at which the sidecar decides, by name."""
        return tuple(sorted(name for name, one in self.switches.items() if one.rbac is not None))


@dataclass(frozen=True, slots=True)
class Terms:
    """What else counts: how durable records are, the headers and claims that are on record though no policy reads them,
    and the workloads whose sidecars have decided otherwise than policyd, or do not tell.
    """

    durability: str
    headers: Collection[str] = ()
    distrusted: Collection[SpiffeId] = ()
    claims: Collection[str] = ()


def enforced(ruling: Ruling, terms: Terms, before: Enforced | None = None) -> Enforced:
    """What a ruling's Enforcements come to; what was made `before` is taken over where it is the same."""
    before = before or Enforced()
    held = dict(_held(ruling))
    logged = tuple(sorted(filter(is_sent, {*ruling.headers_read, *terms.headers})))
    switches = {
        name: _switch(ruling.mesh.listeners[name], logged, before.switches[name].sample_percent)
        for name in _left(ruling, held, before)
    }
    if not held:
        return Enforced(switches)
    compiler = Compiler(ruling, before.compiler)
    why: dict[str, str] = {}
    exact: dict[str, Compiled] = {}
    for name, resource in held.items():
        listener = ruling.mesh.listeners[name]
        reason, compiled = _outcome(resource, listener, compiler, terms)
        if reason:
            why[name] = reason
        if not _can_switch(listener):
            continue
        share = DEFAULT_SAMPLE if resource.spec.sample_percent is None else resource.spec.sample_percent
        switch = _switch(listener, logged, share)
        if compiled is not None:
            exact[name] = compiled
            only = PLAIN_NAMES if compiled.named else ()
            switch = replace(switch, revision=ruling.revision, rbac=_filter(name, compiled, before), only=only)
            if compiled.issuers:
                asked = users.asked(compiled.issuers, {*compiled.claims, *terms.claims})
                switch = replace(switch, asked=asked, told=tuple(users.is_told()))
        switches[name] = switch
    return Enforced(switches, why, {name: one.id for name, one in held.items()}, exact, compiler)


def _switch(listener: Listener, logged: tuple[str, ...], share: float) -> Switch:
    """A listener at which policyd decides, and its sidecar may."""
    behind = (users.told(),) if listener.issuers else ()
    if listener.protocol == "tls":
        logged = tuple(sorted({*logged, SNI_HEADER}))
    return Switch(identified(), tuple(mappers()), logged, share, behind=behind)


def _filter(name: str, compiled: Compiled, before: Enforced) -> Mapping[str, Any]:
    """The filter of a listener in Envoy's words; the very one from before where it was not compiled again."""
    was = before.compiled.get(name)
    if was is not None and all(new is old for new, old in zip(_rules(compiled), _rules(was), strict=True)):
        known = before.switches[name].rbac
        if known is not None:
            return known
    return rbac(compiled)


def _rules(compiled: Compiled) -> tuple[object, ...]:
    return compiled.forbids, compiled.failing, compiled.permits, compiled.verified, compiled.connects, compiled.named


def problems(found: Enforced, declaration: Declaration, terms: Terms) -> Iterator[Problem]:
    """Where an Enforcement says `local` and it cannot be: each reason once."""
    for declared in declaration.of(Enforcement):
        if declared.resource.spec.enforcement == "local":
            yield from _problems(found, declared, terms)


def passed_over(declaration: Declaration, mesh: Mesh) -> Iterator[Problem]:
    """Where an Enforcement says `local` of all that is in a namespace or the mesh, and gateways stay central.

    It is no Problem that refuses the folder: nothing but central is offered there, so nothing is less than was asked.
    """
    for declared in declaration.of(Enforcement):
        resource = declared.resource
        if resource.spec.enforcement != "local":
            continue
        labels = resource.spec.selector.match_labels
        gateways = sorted(
            one.name for one in mesh.instances.values() if one.role == "gateway" and holds_for(resource, labels, one)
        )
        if gateways:
            names = ", ".join(f"`{name}`" for name in gateways)
            message = f"policyd goes on deciding at {names}: {SIDECARS}"
            yield declared.problem("enforcement", message, ("spec", "enforcement"), LEAVE)


def _problems(found: Enforced, declared: Declared[Enforcement], terms: Terms) -> Iterator[Problem]:
    told: set[str] = set()
    for name, why in sorted(found.why.items()):
        if found.by[name] == declared.resource.id and why not in told:
            told.add(why)
            remedy = ACCEPT if why == LATER.format(terms.durability) else CHANGE
            message = f"`{name}` cannot be decided by its sidecar: {why}"
            yield declared.problem("enforcement", message, ("spec", "enforcement"), remedy)


def _held(ruling: Ruling) -> Iterator[tuple[str, Enforcement]]:
    """The listeners of sidecars at which an Enforcement holds."""
    mesh = ruling.mesh
    if not mesh.enforcements:
        return
    for name, listener in sorted(mesh.listeners.items()):
        if listener.side == "inbound" and not mesh.instances[listener.instance].proxyless:
            resource = enforcement_of(mesh.enforcements, mesh.instances[listener.instance])
            if resource is not None:
                yield name, resource


def why_never(listener: Listener) -> str:
    """Why no Enforcement holds at a listener, whatever is written; "" where one may."""
    return SIDECARS if listener.side == "gateway" else ""


def _left(ruling: Ruling, held: Collection[str], before: Enforced) -> Iterator[str]:
    """The listeners at which no Enforcement holds any more: central as any, and still by their routes.

    Another listener would leave open connections the routes of before, and with them the revision of before.
    """
    for name in before.switches:
        listener = ruling.mesh.listeners.get(name)
        if name not in held and listener is not None and listener.side == "inbound" and _can_switch(listener):
            yield name


def _can_switch(listener: Listener) -> bool:
    """Whether it is a listener at which either may decide, and one takes over with the next request or connection."""
    return takes_requests(listener.protocol) != takes_connections(listener.protocol)


def _outcome(
    resource: Enforcement, listener: Listener, compiler: Compiler, terms: Terms
) -> tuple[str, Compiled | None]:
    """Why a listener that is to be local is not ("" where it is, or is not to be), and what it is decided by."""
    spec = resource.spec
    if spec.enforcement == "central":
        return "", None
    if terms.durability != "async" and spec.durability != "async":
        return LATER.format(terms.durability), None
    if spec.enforcement == "auto" and listener.owner in terms.distrusted:
        return DISTRUSTED, None
    compiled = compiler.compile(listener)
    if compiled.is_exact:
        return "", compiled
    return _first(compiled), None


def _first(compiled: Compiled) -> str:
    """What prevents it: an obstacle, or policies, of which some are named."""
    if compiled.obstacles:
        return compiled.obstacles[0]
    one = compiled.left[0]
    more = f", and {len(compiled.left) - 1} more" if len(compiled.left) > 1 else ""
    return f"`{one.policy}`: {why_left(one)}{more}"
