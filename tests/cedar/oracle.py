"""Cedar itself, asked plainly: every policy's text, all of the request, nothing indexed, left out or remembered."""

from __future__ import annotations

import re
from collections.abc import Iterable

import cedarpy
import msgspec

from policyd.cedar.model import Decision, Entity, EvaluationError, Request
from policyd.cedar.policies import PolicySet
from policyd.cedar.schema import Schema


class Oracle:
    """Decides under a set, by Cedar's own public API; a forbid that fails denies, as the engine's law has it."""

    def __init__(self, policy_set: PolicySet, schema: Schema) -> None:
        self._policies = policy_set.policies
        self._handle = cedarpy.PolicySet.from_str("\n".join(policy.text for policy in policy_set.policies))
        self._effects = {policy.id: policy.effect for policy in policy_set.policies}
        self._actions = [_json(Entity(uid, parents=above)) for uid, above in schema.actions.items()]

    def decide(self, request: Request, above: Iterable[Entity] = ()) -> Decision:
        """Answer; `above` are ancestors with parents of their own, where the request's have direct parents only."""
        asked = {
            "principal": request.principal.json(),
            "action": request.action.json(),
            "resource": request.resource.json(),
            "context": request.context,
        }
        entities = [*self._actions, *map(_json, request.entities), *map(_json, above)]
        answer = cedarpy.is_authorized(asked, self._handle, msgspec.json.encode(entities).decode())
        reasons = tuple(
            sorted(self._policies[int(one.removeprefix("policy"))].id for one in answer.diagnostics.reasons)
        )
        errors = tuple(sorted(map(self._error, answer.diagnostics.errors), key=lambda error: error.policy))
        if answer.allowed and any(self._effects[error.policy] == "forbid" for error in errors):
            return Decision(False, (), errors)
        return Decision(answer.allowed, reasons, errors)

    def _error(self, text: str) -> EvaluationError:
        match = re.fullmatch(r"error while evaluating policy `policy(\d+)`: (.*)", text, re.DOTALL)
        assert match is not None, text
        return EvaluationError(self._policies[int(match[1])].id, match[2])


def _json(entity: Entity) -> dict[str, object]:
    parents = [parent.json() for parent in entity.parents]
    return {"uid": entity.uid.json(), "attrs": dict(entity.attrs), "parents": parents, "tags": dict(entity.tags)}
