"""Two rulings side by side: which combinations can differ, and what both answer.

Law: a combination that is left out meets the same policies over the same facts on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from policyd.cedar.http import Endpoint, HttpFacts
from policyd.cedar.model import ANONYMOUS, Request, Uid
from policyd.cedar.policies import Policy
from policyd.errors import IncompleteRequest, UnacceptablePath
from policyd.mesh.service_names import default_port
from policyd.policy.case_yaml import DEFAULT_TIME
from policyd.policy.change import OTHER, apply, callers_of, identifies, methods_of
from policyd.policy.diff_meets import Bits, Meets
from policyd.policy.diff_model import Combination, Side, Tried
from policyd.policy.diff_samples import Sample, samples_of
from policyd.policy.ruling import Ruling
from policyd.spiffe import SpiffeId

_LOCAL: Final = "127.0.0.1"
_UNNAMED: Final = "PROPFIND"  # a method that the schema does not name (RFC 4918)


class Triple(NamedTuple):
    """A combination with the policies it meets on either side, as bits."""

    caller: Uid
    action: Uid
    service: str
    old: int
    new: int


class Pair:
    """Two rulings under one schema; `cases` are requests to try besides those that conditions suggest."""

    def __init__(self, old: Ruling, new: Ruling, cases: Sequence[HttpFacts]) -> None:
        self.callers = callers_of(old.mesh) | callers_of(new.mesh)
        self.actions = methods_of(new.schema)
        self.services = sorted({*old.mesh.services, *new.mesh.services})
        bits = Bits()
        self._old, self._new = _Half(old, bits), _Half(new, bits)
        self._cases: dict[tuple[SpiffeId | None, str, str], list[HttpFacts]] = {}
        for facts in cases:
            self._cases.setdefault((facts.principal, self._action(facts.method), facts.service), []).append(facts)

    def told_apart(self, service: str) -> dict[Uid, SpiffeId | None]:
        """The callers that a service can tell apart on at least one side; only anonymous where it asks nobody."""
        asks = any(
            half.seen(id_, service) is not None for half in (self._old, self._new) for id_ in self.callers.values()
        )
        return self.callers if asks else {ANONYMOUS: None}

    def differing(self) -> Iterator[Triple]:
        """Every combination that meets other policies or other facts on one side than on the other."""
        others = {uid for uid, id_ in self.callers.items() if self._old.entity(id_) != self._new.entity(id_)}
        actions = [(action, self._old.action(action), self._new.action(action)) for action in self.actions]
        for service in self.services:
            other_service = self._old.service_facts(service) != self._new.service_facts(service)
            at_old, at_new = self._old.service(service), self._new.service(service)
            for uid, id_ in self.told_apart(service).items():
                by_old, by_new = at_old & self._old.caller(id_, service), at_new & self._new.caller(id_, service)
                other = other_service or uid in others
                for action, of_old, of_new in actions:
                    old, new = by_old & of_old, by_new & of_new
                    if old != new or (old and other):
                        yield Triple(uid, action, service, old, new)

    def combination(self, triple: Triple) -> Combination:
        """Decide its requests under both; raises DecisionError."""
        old, new = self._old.meets.policies(triple.old), self._new.meets.policies(triple.new)
        samples, whole = samples_of(self._facts(triple), [*old, *new])
        key = (self.callers[triple.caller], triple.action.id, triple.service)
        asked = [*samples, *map(Sample, self._cases.get(key, ()))]
        tried = dict.fromkeys(one for sample in asked if (one := self._try(sample)) is not None)
        return Combination(
            caller=str(triple.caller),
            method=triple.action.id,
            service=triple.service,
            old=_ids(self._old.meets.policies(triple.old & ~triple.new)),
            new=_ids(self._new.meets.policies(triple.new & ~triple.old)),
            tried=tuple(tried),
            whole=whole,
        )

    def _try(self, sample: Sample) -> Tried | None:
        """What both answer; None for a request that no service would take."""
        old, new = self._old.answer(sample), self._new.answer(sample)
        return None if old is None or new is None else Tried(sample.words(), old, new)

    def _facts(self, triple: Triple) -> list[HttpFacts]:
        """The plain request, at every instance that differs in its labels."""
        mesh = (self._new if triple.service in self._new.ruling.mesh.services else self._old).ruling.mesh
        service = mesh.services[triple.service]
        labelled = {tuple(sorted(one.labels.items())): one.name for one in reversed(mesh.instances_of(service.id))}
        plain = HttpFacts(
            principal=self.callers[triple.caller],
            service=service.id,
            method=_UNNAMED if triple.action.id == OTHER else triple.action.id,
            target="/",
            host=service.name,
            time=DEFAULT_TIME,
            source=Endpoint(_LOCAL, 0),
            destination=Endpoint(_LOCAL, default_port(service)),
        )
        return [plain._replace(instance=name) for name in sorted(labelled.values())] or [plain]

    def _action(self, method: str) -> str:
        return method if any(action.id == method for action in self.actions) else OTHER


class _Half:
    """One of the two."""

    def __init__(self, ruling: Ruling, bits: Bits) -> None:
        self.ruling = ruling
        self.meets = Meets(ruling.policy_set.policies, bits)
        self._identifies = {service: identifies(ruling.mesh, service) for service in ruling.mesh.services}
        self._callers: dict[SpiffeId | None, int] = {}

    def entity(self, id_: SpiffeId | None) -> object:
        return self.ruling.entities.principal(id_)

    def caller(self, id_: SpiffeId | None, service: str) -> int:
        known = self.seen(id_, service)
        if known not in self._callers:
            entity = self.ruling.entities.principal(known)
            self._callers[known] = self.meets.mask("principal", entity.uid, entity.parents)
        return self._callers[known]

    def seen(self, id_: SpiffeId | None, service: str) -> SpiffeId | None:
        """Who a caller is to a service: anonymous where it asks nobody."""
        return id_ if self._identifies.get(service, True) else None

    def action(self, action: Uid) -> int:
        return self.meets.mask("action", action, self.ruling.schema.actions.get(action, ()))

    def service(self, service: str) -> int:
        request = self._plain(service)
        if request is None:
            return 0
        entity = next(one for one in request.entities if one.uid == request.resource)
        return self.meets.mask("resource", entity.uid, entity.parents)

    def service_facts(self, service: str) -> object:
        """All that conditions can read of a service, of what answers for it, and of what they name besides."""
        request = self._plain(service)
        if request is None:
            return None
        instances = self.ruling.mesh.instances_of(service)
        labels = frozenset(tuple(sorted(one.labels.items())) for one in instances)
        service_ports = self.ruling.mesh.services[service].ports
        named = {one.uid: one for one in request.entities if one.uid.type not in ("Headers", "Labels")}
        return named, labels, service_ports, self._identifies[service]

    def answer(self, sample: Sample) -> Side | None:
        facts = sample.facts
        if facts.service not in self.ruling.mesh.services:
            return Side("none")
        try:
            asked = self.ruling.request(facts._replace(principal=self.seen(facts.principal, facts.service)))
        except (UnacceptablePath, IncompleteRequest):
            return None
        request = apply(sample.changes, asked, self.ruling)
        if request is None:
            return None
        decision = self.ruling.decide(request)
        return Side(decision.word, decision.reasons)

    def _plain(self, service: str) -> Request | None:
        if service not in self.ruling.mesh.services:
            return None
        end = Endpoint(_LOCAL, 0)
        return self.ruling.request(HttpFacts(None, service, "GET", "/", "", DEFAULT_TIME, end, end))


def _ids(policies: Sequence[Policy]) -> tuple[str, ...]:
    return tuple(policy.id for policy in policies)
