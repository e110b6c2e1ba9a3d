"""The policies of a ruling, compiled for one listener: what its proxy decides by itself, and why it may not.

Law: a listener is decided in its proxy whole or not at all. Cedar's errors are kept as policyd keeps them: a permit
that fails does not apply; a forbid that fails denies, after those that apply.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cedarpy import pst

from policyd.authz.ruling import Ruling
from policyd.cedar.model import ANONYMOUS
from policyd.cedar.policies import Policy
from policyd.cedar.reads import reads_of
from policyd.cedar.scope import Constraint, Key, asked_keys, keys_of
from policyd.cedar.syntax_tree import uid_of
from policyd.errors import NotCompilable
from policyd.local.evaluate import Evaluator
from policyd.local.logic import (
    FALSE,
    MAX_TESTS,
    NO,
    TRUE,
    YES,
    Formula,
    Outcome,
    Pattern,
    atoms_of,
    both,
    opposite,
    some,
    tests_of,
)
from policyd.local.place import Known, Place, known_of
from policyd.local.values import Unknown
from policyd.mesh.model import Listener, Mesh
from policyd.mesh.protocols import takes_connections
from policyd.names import RULE_BAD_PATH, RULE_INCOMPLETE
from policyd.policy.nearest import conditions_of, written

MAX_EXPRESSION: Final = 4_096  # characters; Envoys of ours take programs of 32,768 steps
# a rule's name has no spaces any more where callers' statuses come from
_MISTAKEN: Final = frozenset(one.replace(" ", "_") for one in (RULE_INCOMPLETE, RULE_BAD_PATH))
UNKNOWN_YET: Final = (
    "the first bytes of each connection tell what it brings (protocol `auto`): give the port a protocol"
)
MISTAKEN: Final = "an id that the proxy would take for a reason of its own"

Source = tuple[str, str, str, int]  # a policy's id, text, file and line


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy, and when it applies."""

    policy: str
    when: Formula


@dataclass(frozen=True, slots=True)
class Left:
    """A policy that is not compiled: `why`, with the part of its condition that prevents it ("" for its scope)."""

    policy: str
    effect: str
    why: str
    text: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Compiled:
    """What of a ruling holds at one listener. Each in the order of ids: the first that applies is the one on record.

    `failing` are the forbids that can fail, and when; `unused` are the policies that can apply to no request there, as
    far as is known, with their effects. `verified` is the trust domain of callers, "" where none is verified;
    `connects` says whether connections are decided there, and no requests, and `named` whether these are for names. Of
    end users `issuers` are believed there, each with the claims that are words, and `claims` are those that policies
    read.
    """

    listener: str
    service: str
    revision: str
    forbids: tuple[Rule, ...] = ()
    failing: tuple[Rule, ...] = ()
    permits: tuple[Rule, ...] = ()
    unused: tuple[tuple[str, str], ...] = ()
    left: tuple[Left, ...] = ()
    obstacles: tuple[str, ...] = ()
    verified: str = ""
    connects: bool = False
    named: bool = False
    issuers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    claims: tuple[str, ...] = ()

    @property
    def content(self) -> tuple[object, ...]:
        """Equal for listeners that are decided alike."""
        rules = (self.forbids, self.failing, self.permits, self.unused, self.left, self.obstacles)
        known = (self.verified, self.connects, self.named, self.issuers, self.claims)
        return (self.service, self.revision, *known, *rules)

    @property
    def is_exact(self) -> bool:
        """Whether the proxy can decide in policyd's place."""
        return not self.left and not self.obstacles


class Compiler:
    """Compiles a ruling for its listeners, of which each asks only what is filed under its service.

    What was compiled `before` over an equal Mesh is taken over where no policy of the listener is another one.
    """

    def __init__(self, ruling: Ruling, before: Compiler | None = None) -> None:
        self._ruling = ruling
        self._before = before._kept if before is not None and _same(before._ruling.mesh, ruling.mesh) else {}
        self._kept: dict[str, tuple[tuple[Source, ...], Compiled]] = {}
        self._known: Known = known_of(ruling)
        self._by_resource: dict[Key, list[Policy]] = {}
        for policy in ruling.policy_set.policies:
            for key in asked_keys(policy.tree.resource):
                self._by_resource.setdefault(key, []).append(policy)

    def compile(self, listener: Listener) -> Compiled:
        """The policies that hold at a listener."""
        mesh = self._ruling.mesh
        found = Compiled(
            listener.name,
            listener.service,
            self._ruling.revision,
            obstacles=tuple(self._obstacles(listener)),
            verified=mesh.trust_domain if listener.verifies_peers else "",
            connects=takes_connections(listener.protocol),
            named=listener.protocol == "tls",
            issuers=listener.issuers,
        )
        if found.obstacles:
            return found
        place = Place(self._known, listener, mesh.instances[listener.instance])
        policies = self._candidates(place)
        sources = tuple((one.id, one.text, one.file, one.line) for one in policies)
        before = self._before.get(listener.name)
        if before is not None and before[0] == sources:
            compiled = replace(before[1], revision=found.revision)
        else:
            compiled = _bounded(_compiled(found, policies, place))
        self._kept[listener.name] = (sources, compiled)
        return compiled

    def _obstacles(self, listener: Listener) -> Iterator[str]:
        if listener.side == "egress":
            yield "what leaves the mesh is decided by its Host"
        if listener.side == "gateway" and self._ruling.mesh.outside:
            yield "a gateway's routes may lead outside, which is decided by the Host"
        if listener.side == "gateway" and listener.verifies_peers:
            yield "workloads bring tunnels to gateways, too"
        if listener.protocol == "auto":
            yield UNKNOWN_YET
        elif takes_connections(listener.protocol) and listener.side != "inbound":
            yield f"connections are decided there, at a gateway (`{listener.protocol}`)"
        if listener.issuers and (listener.side == "gateway" or takes_connections(listener.protocol)):
            yield "tokens are taken there, and no filter says whose they are"
        if listener.verifies_peers and self._ruling.mesh.federated:
            yield "workloads of other trust domains are known there"
        if self._ruling.shadow is not None:
            yield "policies are tried beside those in force"

    def _candidates(self, place: Place) -> list[Policy]:
        """In the order of their ids."""
        keys = keys_of(place.resource.uid, place.resource.parents)
        found = {one.id: one for key in keys for one in self._by_resource.get(key, ())}
        return [found[id_] for id_ in sorted(found)]


def _same(one: Mesh, other: Mesh) -> bool:
    """Whether policies mean the same over both; a Mesh is made anew with every change of the folder."""
    return one is other or one == other


def listeners_of(mesh: Mesh, service: str) -> list[Listener]:
    """The listeners at which requests to a service (an id) are decided, by name."""
    return [one for _, one in sorted(mesh.listeners.items()) if one.service == service and one.side != "egress"]


def _compiled(empty: Compiled, policies: Sequence[Policy], place: Place) -> Compiled:
    read = reads_of(one.tree for one in policies).tags if empty.issuers else frozenset[str]()
    if read is None:
        return replace(empty, obstacles=("a policy reads a claim whose name it computes",))
    rules: dict[str, list[Rule]] = {"permit": [], "forbid": []}
    failing: list[Rule] = []
    unused: list[tuple[str, str]] = []
    left: list[Left] = []
    for policy in policies:
        if policy.effect == "forbid" and policy.id in _MISTAKEN:
            left.append(Left(policy.id, policy.effect, MISTAKEN, "", policy.file, policy.line))
            continue
        try:
            outcome = _applies(policy, place)
        except NotCompilable as error:
            left.append(_left(policy, place, str(error)))
            continue
        if outcome.true != NO:
            rules[policy.effect].append(Rule(policy.id, outcome.true))
        if outcome.error != NO and policy.effect == "forbid":
            failing.append(Rule(policy.id, outcome.error))
        elif outcome.true == NO:
            unused.append((policy.id, policy.effect))
    return replace(
        empty,
        forbids=tuple(rules["forbid"]),
        failing=tuple(failing),
        permits=tuple(rules["permit"]),
        unused=tuple(unused),
        left=tuple(left),
        claims=tuple(sorted(read)),
    )


def _applies(policy: Policy, place: Place) -> Outcome:
    """When a policy applies, and when it fails."""
    outcome = _in_scope(policy.tree, place)
    for clause in policy.tree.clauses:
        if outcome.true == NO:
            return outcome
        found = Evaluator(place).truth(clause.expr)
        outcome = both(outcome, found if isinstance(clause, pst.When) else opposite(found))
    return outcome


def _in_scope(tree: pst.Template, place: Place) -> Outcome:
    action = _action(tree.action, place)
    principal = _principal(tree.principal, place)
    return both(Outcome(principal), Outcome(action))


def _action(constraint: pst.ActionConstraint, place: Place) -> Formula:
    match constraint:
        case pst.ScopeAny():
            return YES
        case pst.ActionEq(entity):
            return place.action_equals(uid_of(entity))
        case pst.ActionIn(entities):
            return some(*(place.is_in(Unknown.ACTION, uid_of(one)) for one in entities))


def _principal(constraint: pst.PrincipalOrResourceConstraint, place: Place) -> Formula:
    if place.principal is not Unknown.CALLER:
        keys = keys_of(ANONYMOUS, ())
        return NO if keys.isdisjoint(asked_keys(constraint)) else YES
    return some(*(_caller_key(key, constraint, place) for key in asked_keys(constraint)))


def _caller_key(key: Key, constraint: Constraint, place: Place) -> Formula:
    """What a key of a scope asks of a caller with a certificate; each is a workload."""
    match constraint:
        case pst.ScopeAny():
            return YES
        case pst.ScopeIs(type_):
            return place.is_a(Unknown.CALLER, str(type_))
        case pst.ScopeIsIn(type_, entity) if isinstance(entity, pst.EntityUid):
            is_one = place.is_a(Unknown.CALLER, str(type_))
            return NO if is_one == NO else place.is_in(Unknown.CALLER, uid_of(entity))
        case pst.ScopeEq(entity) if isinstance(entity, pst.EntityUid):
            return place.caller_equals(uid_of(entity))
        case pst.ScopeIn(entity) if isinstance(entity, pst.EntityUid):
            return place.is_in(Unknown.CALLER, uid_of(entity))
        case _:
            raise NotCompilable(f"a scope of `{key[0]}`")


def _left(policy: Policy, place: Place, why: str) -> Left:
    """Find the part of the condition that prevents it."""
    so_far = TRUE
    for part in conditions_of(policy):
        try:
            found = Evaluator(place).truth(part.expr)
        except NotCompilable as error:
            line = policy.line + policy.text.count("\n", 0, part.span.start)
            return Left(policy.id, policy.effect, str(error), written(policy, part.span), policy.file, line)
        so_far = both(so_far, found if part.wanted else opposite(found))
        if so_far == FALSE:
            break
    return Left(policy.id, policy.effect, why, "", policy.file, policy.line)


def _bounded(compiled: Compiled) -> Compiled:
    """Refuse what would make too large a filter."""
    found = [rule.when for rule in (*compiled.forbids, *compiled.failing, *compiled.permits)]
    tests = sum(map(tests_of, found))
    obstacles = [
        f"an expression of over {MAX_EXPRESSION:,} characters ({atom.words[:80]})"
        for formula in found
        for atom in atoms_of(formula)
        if isinstance(atom.test, Pattern) and len(atom.test.regex) > MAX_EXPRESSION
    ]
    if tests > MAX_TESTS:
        obstacles.append(f"a filter of {tests:,} tests, and at most {MAX_TESTS:,} are sent")
    if not obstacles:
        return compiled
    return replace(compiled, forbids=(), failing=(), permits=(), unused=(), left=(), obstacles=tuple(obstacles))
