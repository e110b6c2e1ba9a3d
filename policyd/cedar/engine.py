"""The engine: one request, one decision, under one policy set.

Law: fail closed, visibly. A missing entity is an error, not a silent false; an error in a forbid denies;
whatever Cedar answers that is not plainly a decision is a DecisionError. Callers see `decide` only: what is
evaluated, passed or remembered to answer it is this room's own business.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
from cedarpy import _internal

from policyd.cedar.model import Decision, Entity, EvaluationError, Request
from policyd.cedar.policies import Policy, PolicySet
from policyd.cedar.reads import entities_in, lean, project
from policyd.cedar.schema import Schema
from policyd.errors import DecisionError

MAX_ENCODED = 4096  # entities kept in their JSON form

_EVALUATION = re.compile(r"error while evaluating policy `policy(\d+)`: (.*)", re.DOTALL)
_encode: Final = msgspec.json.Encoder().encode


class _Diagnostics(msgspec.Struct, frozen=True):
    reason: list[str] = []
    errors: list[str] = []


class _Answer(msgspec.Struct, frozen=True):
    decision: str
    diagnostics: _Diagnostics


_answer: Final = msgspec.json.Decoder(_Answer).decode


class Engine:
    """Decides under `policy_set`; `schema` gives the ancestors of actions. Safe for concurrent use."""

    def __init__(self, policy_set: PolicySet, schema: Schema) -> None:
        self._handle = policy_set.handle
        self._reads = policy_set.reads
        self._effect = {policy.id: policy.effect for policy in policy_set.policies}
        self._number = {f"policy{index}": policy for index, policy in enumerate(policy_set.policies)}
        self._actions = {uid: self._encode(Entity(uid, parents=above)) for uid, above in schema.actions.items()}
        self._named = [uid for uid in self._actions if uid in self._reads.entities]
        self._encoded: dict[int, tuple[Entity, bytes]] = {}

    def project(self, request: Request) -> Request:
        """The part of `request` that policies can read: what a decision depends on, and what is recorded of
        it.
        """
        return project(request, self._reads)

    def decide(self, request: Request) -> Decision:
        """Answer `request`; raises DecisionError where there is no sound answer."""
        part = self.project(request)
        _check_complete(part)
        asked = {
            "principal": part.principal.json(),
            "action": part.action.json(),
            "resource": part.resource.json(),
            "context": _encode(part.context).decode(),
        }
        # the wrapper of cedarpy decodes and wraps the answer anew: 10 µs more for the same call
        try:
            answer = _answer(_internal.is_authorized(asked, self._handle, self._slice(part)))
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            raise DecisionError(f"the engine failed: {error}") from error
        return self._decision(answer)

    def _slice(self, request: Request) -> str:
        """The entities as Cedar reads them, the action's with its ancestors among them."""
        if request.action not in self._actions:
            raise DecisionError(f"the schema has no action `{request.action}`")
        actions = [self._actions[uid] for uid in {request.action, *self._named}]
        return (b"[" + b",".join([*actions, *map(self._kept, request.entities)]) + b"]").decode()

    def _kept(self, entity: Entity) -> bytes:
        """Its JSON form, kept while the very same value comes again, as the mesh's own entities do."""
        if entity.uid.type == "Headers":  # another one each request
            return self._encode(entity)
        kept = self._encoded.get(id(entity))
        if kept is not None and kept[0] is entity:
            return kept[1]
        encoded = self._encode(entity)
        if len(self._encoded) >= MAX_ENCODED:
            self._encoded.clear()
        self._encoded[id(entity)] = (entity, encoded)
        return encoded

    def _encode(self, entity: Entity) -> bytes:
        """Cedar's JSON form of what policies read of an entity."""
        part = lean(entity, self._reads)
        parents = [parent.json() for parent in part.parents]
        return _encode({"uid": part.uid.json(), "attrs": part.attrs, "parents": parents, "tags": part.tags})

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


def _check_complete(request: Request) -> None:
    """Every entity that the request names is supplied: of a missing one Cedar says no, whatever is asked of
    it.
    """
    supplied = {entity.uid for entity in request.entities}
    if len(supplied) != len(request.entities):
        twice = next(one for one in request.entities if sum(one.uid == other.uid for other in request.entities) > 1)
        raise DecisionError(f"the entity `{twice.uid}` is supplied twice")
    for uid in (request.principal, request.resource, *entities_in(request.context)):
        if uid not in supplied:
            raise DecisionError(f"the entity `{uid}` is not supplied")
