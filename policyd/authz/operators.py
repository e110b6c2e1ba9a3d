"""What operators may do: the question that the operators' policies are asked (operators.cedarschema).

Law: who owns the folder may act unless a policy forbids it; a forbid that fails denies. Nobody else comes this way.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal

from policyd.authz.entities import MeshEntities
from policyd.cedar.engine import Engine
from policyd.cedar.model import Decision, Entity, Request, Uid

Act = Literal["view", "explain", "export", "apply", "invite", "sign", "revoke", "rotate"]
OWNER: Final = "owner"  # the reason where no policy says anything


def may(
    policies: Engine | None, entities: MeshEntities, trust_domain: str, uid: int, act: Act, now: datetime
) -> Decision:
    """Whether the owner of the folder, a user of this machine, may act; raises DecisionError.

    `policies` are the folder's own, None where it has none.
    """
    if policies is None:
        return Decision(allowed=True, reasons=(OWNER,))
    decision = policies.decide(_request(entities, trust_domain, uid, act, now))
    if not decision.allowed and not decision.reasons and not decision.errors:
        return Decision(allowed=True, reasons=(OWNER,))
    return decision


def may_visit(
    policies: Engine | None, entities: MeshEntities, trust_domain: str, who: str, act: Act, now: datetime
) -> Decision:
    """Whether somebody else than the owner may act, as `token:<name>`: if a policy lets them. Raises DecisionError."""
    if policies is None:
        return Decision(allowed=False, reasons=())
    return policies.decide(_visit(entities, trust_domain, who, act, now))


def _request(entities: MeshEntities, trust_domain: str, uid: int, act: Act, now: datetime) -> Request:
    return _visit(entities, trust_domain, f"unix:{uid}", act, now)


def _visit(entities: MeshEntities, trust_domain: str, who: str, act: Act, now: datetime) -> Request:
    via = who.partition(":")[0]
    operator = entities.operator(who, via)
    domain = Entity(Uid("TrustDomain", trust_domain))
    time = {"__extn": {"fn": "datetime", "arg": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}}
    context = {"via": via, "time": time}
    above = tuple(Entity(parent) for parent in operator.parents)
    return Request(operator.uid, Uid("Action", act), domain.uid, context, (operator, domain, *above))
