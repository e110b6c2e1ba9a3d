"""The engine: one request, one decision, under one policy set.

Law: fail closed, visibly. A missing entity is an error, not a silent false; an error in a forbid denies;
whatever Cedar answers that is not plainly a decision is a DecisionError. Callers see a decision and what it read:
what is evaluated, passed or remembered to answer is this room's own business, and changes no answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from cedarpy import _internal

from policyd.cedar.cache import MAX_DECISIONS, CacheStats, DecisionCache
from policyd.cedar.candidates import CandidateSets
from policyd.cedar.model import Decision, Entity, EvaluationError, Request
from policyd.cedar.policies import Policy, PolicySet
from policyd.cedar.question import Question, Questions
from policyd.cedar.schema import Schema
from policyd.cedar.slices import Slices
from policyd.errors import DecisionError

_EVALUATION = re.compile(r"error while evaluating policy `policy(\d+)`: (.*)", re.DOTALL)


class _Diagnostics(msgspec.Struct, frozen=True):
    reason: list[str] = []
    errors: list[str] = []


class _Answer(msgspec.Struct, frozen=True):
    decision: str
    diagnostics: _Diagnostics


_answer: Final = msgspec.json.Decoder(_Answer).decode


class Engine:
    """Decides under `policy_set`; `schema` gives the ancestors of actions, `cached` is how many decisions are kept.
    Safe for concurrent use.
    """

    def __init__(self, policy_set: PolicySet, schema: Schema, *, cached: int = MAX_DECISIONS) -> None:
        self._number = {f"policy{number}": policy for number, policy in enumerate(policy_set.policies)}
        self._effect = {policy.id: policy.effect for policy in policy_set.policies}
        self._sets = CandidateSets(policy_set.policies)
        self._slices = Slices()
        self._questions = Questions(self._sets, schema)
        self._cache = DecisionCache(cached)

    def stats(self) -> CacheStats:
        """How the cache fares."""
        return self._cache.stats()

    def fading(self) -> Iterator[None]:
        """Give up all that it has, a piece a step: only for an engine that nobody asks any more."""
        return self._sets.fading()

    def decide(self, request: Request) -> Decision:
        """Answer `request`; raises DecisionError where there is no sound answer."""
        return self.answer(self.question(request))

    def question(self, request: Request) -> Question:
        """What is asked when `request` is: the part of it that the policies which can apply to it read.

        Raises DecisionError where it does not bring what it names.
        """
        return self._questions.of(request)

    def answer(self, question: Question) -> Decision:
        """Answer it, from memory where the same was asked before; raises DecisionError."""
        if question.candidates.reads.time:
            self._cache.bypass()
            return self._evaluate(question)
        key = question.key
        decision = self._cache.find(key)
        if decision is None:
            decision = self._evaluate(question)
            self._cache.keep(key, decision)
        return decision

    def _evaluate(self, question: Question) -> Decision:
        """What Cedar says."""
        _check_distinct(question.entities)
        asked = {
            "principal": question.asked.principal.json(),
            "action": question.asked.action.json(),
            "resource": question.asked.resource.json(),
            "context": question.context_json.decode(),
        }
        # the wrapper of cedarpy decodes and wraps the answer anew: 10 µs more for the same call
        try:
            entities = self._slices.of(question.lasting, question.passing)
            answer = _answer(_internal.is_authorized(asked, self._sets.handle(question.candidates), entities))
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            raise DecisionError(f"the engine failed: {error}") from error
        return self._decision(answer)

    def _decision(self, answer: _Answer) -> Decision:
        if answer.decision not in ("Allow", "Deny"):
            raise DecisionError(f"no decision: {'; '.join(answer.diagnostics.errors)}")
        reasons = tuple(sorted([self._policy(number).id for number in answer.diagnostics.reason]))
        errors = tuple(sorted([self._error(text) for text in answer.diagnostics.errors], key=lambda one: one.policy))
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


def _check_distinct(entities: Sequence[Entity]) -> None:
    if len({one.uid for one in entities}) < len(entities):
        (most, _), *_ = Counter(one.uid for one in entities).most_common(1)
        raise DecisionError(f"the entity `{most}` is supplied twice")
