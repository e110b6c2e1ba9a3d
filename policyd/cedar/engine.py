"""The engine: one request, one decision, under one policy set.

Law: fail closed, visibly. A missing entity is an error, not a silent false; an error in a forbid denies;
whatever Cedar answers that is not plainly a decision is a DecisionError. Callers see a decision and what it read:
what is evaluated, passed or remembered to answer is this room's own business, and changes no answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from cedarpy import _internal

from policyd.cedar.cache import MAX_DECISIONS, CacheStats, DecisionCache
from policyd.cedar.candidates import Candidates, CandidateSets
from policyd.cedar.model import Decision, Entity, EvaluationError, Request, Uid
from policyd.cedar.policies import Policy, PolicySet
from policyd.cedar.reads import CONTEXT_ONLY, HEADERS, context_read, headers_read
from policyd.cedar.schema import Schema
from policyd.cedar.slices import Slices
from policyd.errors import DecisionError

MAX_RELATIONS: Final = 16_384  # principals, actions and resources whose candidates are kept

_EVALUATION = re.compile(r"error while evaluating policy `policy(\d+)`: (.*)", re.DOTALL)
_encode: Final = msgspec.json.Encoder().encode


class _Diagnostics(msgspec.Struct, frozen=True):
    reason: list[str] = []
    errors: list[str] = []


class _Answer(msgspec.Struct, frozen=True):
    decision: str
    diagnostics: _Diagnostics


_answer: Final = msgspec.json.Decoder(_Answer).decode


class Question(msgspec.Struct, frozen=True):
    """A request as its candidates see it: `request` is the part that the decision depends on, and what is recorded
    of it; `context` and the entities, those that come again and those of this request only, are the same as Cedar
    reads them.
    """

    request: Request
    candidates: Candidates
    context: bytes
    lasting: tuple[bytes, ...]
    passing: tuple[bytes, ...]


class _Relation(NamedTuple):
    """The candidates for a principal, an action and a resource, as long as these are supplied as the same."""

    candidates: Candidates
    entities: tuple[Entity, Entity]


class Engine:
    """Decides under `policy_set`; `schema` gives the ancestors of actions, `cached` is how many decisions are kept.
    Safe for concurrent use.
    """

    def __init__(self, policy_set: PolicySet, schema: Schema, *, cached: int = MAX_DECISIONS) -> None:
        self._number = {f"policy{number}": policy for number, policy in enumerate(policy_set.policies)}
        self._effect = {policy.id: policy.effect for policy in policy_set.policies}
        self._actions = {uid: Entity(uid, parents=above) for uid, above in schema.actions.items()}
        self._sets = CandidateSets(policy_set.policies)
        self._slices = Slices()
        self._relations: dict[tuple[Uid, Uid, Uid], _Relation] = {}
        self._cache = DecisionCache(cached)

    def stats(self) -> CacheStats:
        """How the cache fares."""
        return self._cache.stats()

    def decide(self, request: Request) -> Decision:
        """Answer `request`; raises DecisionError where there is no sound answer."""
        return self.answer(self.question(request))

    def project(self, request: Request) -> Request:
        """The part of `request` that the policies which can apply to it read; raises DecisionError."""
        return self.question(request).request

    def question(self, request: Request) -> Question:
        """What is asked when `request` is; raises DecisionError where it does not bring what it names."""
        candidates = self._candidates(request)
        reads = candidates.reads
        reached: set[Uid] = set()
        context = context_read(request.context, reads.context, reached)
        if reached:
            supplied = {one.uid for one in request.entities}
            for uid in reached:
                if uid not in supplied:
                    raise _missing(uid)
        entities: list[Entity] = []
        lasting: list[bytes] = []
        passing: list[bytes] = []
        for one in request.entities:
            uid = one.uid
            if uid.type not in CONTEXT_ONLY:
                entities.append(one)
                lasting.append(candidates.encode(one))
            elif uid not in reached and uid not in reads.entities:
                continue
            elif uid.type == HEADERS:
                entities.append(headers_read(one, reads))
                passing.append(candidates.encode_once(entities[-1]))
            else:
                entities.append(one)
                lasting.append(candidates.encode(one))
        part = Request(request.principal, request.action, request.resource, context, tuple(entities))
        return Question(part, candidates, _encode(context), tuple(lasting), tuple(passing))

    def answer(self, question: Question) -> Decision:
        """Answer it, from memory where the same was asked before; raises DecisionError."""
        if question.candidates.reads.time:
            self._cache.bypass()
            return self._evaluate(question)
        asked = question.request
        about = (asked.principal, asked.action, asked.resource)
        key = (question.candidates, about, question.context, question.lasting, question.passing)
        decision = self._cache.find(key)
        if decision is None:
            decision = self._evaluate(question)
            self._cache.keep(key, decision)
        return decision

    def _candidates(self, request: Request) -> Candidates:
        """Found by the mesh's own entities where they stand in front, as requests of the rooms above have them."""
        asked, entities = (request.principal, request.action, request.resource), request.entities
        known = self._relations.get(asked)
        if known is not None and entities[:2] == known.entities:
            return known.candidates
        supplied = {one.uid: one for one in entities}
        for uid in (request.principal, request.resource):
            if uid not in supplied:
                raise _missing(uid)
        action = self._actions.get(request.action)
        if action is None:
            raise DecisionError(f"the schema has no action `{request.action}`")
        principal, resource = supplied[request.principal], supplied[request.resource]
        candidates = self._sets.of(
            self._sets.index.find(
                (principal.uid, principal.parents), (action.uid, action.parents), (resource.uid, resource.parents)
            )
        )
        if len(self._relations) >= MAX_RELATIONS:
            self._relations.clear()
        self._relations[asked] = _Relation(candidates, (principal, resource))
        return candidates

    def _evaluate(self, question: Question) -> Decision:
        """What Cedar says."""
        request, candidates = question.request, question.candidates
        _check_distinct(request.entities)
        asked = {
            "principal": request.principal.json(),
            "action": request.action.json(),
            "resource": request.resource.json(),
            "context": question.context.decode(),
        }
        named = {request.action, *(uid for uid in candidates.reads.entities if uid in self._actions)}
        actions = [candidates.encode(self._actions[uid]) for uid in named]
        # the wrapper of cedarpy decodes and wraps the answer anew: 10 µs more for the same call
        try:
            entities = self._slices.of((*actions, *question.lasting), question.passing)
            answer = _answer(_internal.is_authorized(asked, self._sets.handle(candidates), entities))
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            raise DecisionError(f"the engine failed: {error}") from error
        return self._decision(answer)

    def _decision(self, answer: _Answer) -> Decision:
        if answer.decision not in ("Allow", "Deny"):
            raise DecisionError(f"no decision: {'; '.join(answer.diagnostics.errors)}")
        reasons = tuple(sorted(self._policy(number).id for number in answer.diagnostics.reason))
        errors = tuple(sorted(map(self._error, answer.diagnostics.errors), key=lambda error: error.policy))
        allowed = answer.decision == "Allow"
        if allowed and any(self._effect[error.policy] == "forbid" for error in errors):
            return Decision(False, (), errors)
        return Decision(allowed, reasons, errors)

    def _policy(self, number: str) -> Policy:
        policy = self._number.get(number)
        if policy is None:
            raise DecisionError(f"the engine named `{number}`, which is no policy of the set")
        return policy

    def _error(self, text: str) -> EvaluationError:
        match = _EVALUATION.fullmatch(text)
        if match is None:
            raise DecisionError(f"the engine failed: {text}")
        return EvaluationError(self._policy(f"policy{match[1]}").id, match[2])


def _missing(uid: Uid) -> DecisionError:
    """Of an entity that is not supplied Cedar says no, whatever is asked of it."""
    return DecisionError(f"the entity `{uid}` is not supplied")


def _check_distinct(entities: Sequence[Entity]) -> None:
    if len({one.uid for one in entities}) < len(entities):
        (most, _), *_ = Counter(one.uid for one in entities).most_common(1)
        raise DecisionError(f"the entity `{most}` is supplied twice")
