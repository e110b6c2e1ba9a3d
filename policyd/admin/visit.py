"""The administration API's part about visitors: whether somebody who comes by the console may look, and that they did.

Law: the owner may look unless a policy forbids it; anybody else only if a policy permits it. What is refused is always
on record.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

from policyd._pb import admin_pb2 as pb
from policyd.audit.operations import operation
from policyd.audit.record import Entry
from policyd.authz.operators import Act, may, may_visit
from policyd.cedar.model import Decision, Uid
from policyd.errors import InvalidInput, Problem
from policyd.reload.live import Live

ACTS: Final[tuple[Act, ...]] = ("view", "explain", "export")
WHO: Final = re.compile(r"(?:unix|token|oidc):[\x21-\x7e]{1,200}")
_OPERATION: Final = re.compile(r"[a-z][a-z_.]{0,60}|")


def visited(request: pb.VisitRequest, live: Live, now: datetime, record: Callable[[Entry], object]) -> pb.VisitReply:
    """Decide, and record what is to be; raises InvalidInput, DecisionError and JournalError."""
    act = next((one for one in ACTS if one == request.act), None)
    if act is None or not WHO.fullmatch(request.who) or not _OPERATION.fullmatch(request.operation):
        raise InvalidInput([Problem("visit", "no visit: it has a visitor, an act and the name of an operation")])
    decision = decided(live, request.who, act, now)
    if request.operation or not decision.allowed:
        name, by = request.operation or "console.view", str(Uid("Operator", request.who))
        record(operation(now, name, {}, by=by, decision=decision.word, reasons=decision.reasons))
    return pb.VisitReply(allowed=decision.allowed, reasons=decision.reasons)


def decided(live: Live, who: str, act: Act, now: datetime) -> Decision:
    """Whether an operator may act, the owner or somebody else; raises DecisionError."""
    uid = os.getuid()
    if who == f"unix:{uid}":
        return may(live.operators, live.ruling.entities, live.mesh.trust_domain, uid, act, now)
    return may_visit(live.operators, live.ruling.entities, live.mesh.trust_domain, who, act, now)
