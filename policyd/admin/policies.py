"""The administration API's part about policies that somebody edited in the console: written and enforced.

Law: only where the folder's settings say so. Who may is decided by the operators' policies; what is wrong, and a file
that changed meanwhile, writes nothing; what is written was on record before.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from policyd._pb import admin_pb2 as pb
from policyd.admin.facts import refusal
from policyd.admin.mesh import Forbidden, MeshParts
from policyd.admin.visit import WHO, decided
from policyd.amend import hash_of
from policyd.audit.operations import operation
from policyd.audit.record import Entry
from policyd.cedar.model import Decision, Uid
from policyd.errors import InvalidInput, Problem
from policyd.keeper import bounded
from policyd.mesh.edit import Edit

OPERATION: Final = "policies.apply"
MAX_TEXT: Final = 256 << 10  # characters of a file
MAX_NAME: Final = 200
_BELOW: Final = "policies/"
_ENDS: Final = ".cedar"


async def applied(request: pb.ApplyPoliciesRequest, parts: MeshParts) -> pb.ApplyPoliciesReply:
    """Take a file of policies; raises Forbidden, InvalidInput for what is no request, JournalError and StateError."""
    _check(request)
    if not parts.live().settings.console.apply:
        remedy = "switch it on with `console: {apply: true}` in policyd.yaml"
        raise Forbidden("nothing is enforced from the console of this mesh", remedy=remedy)
    async with parts.one:
        decision = _decided(request, parts)
        try:
            made = await asyncio.to_thread(parts.amender.replaced, request.file, request.text, request.before)
        except InvalidInput as error:
            return pb.ApplyPoliciesReply(refused=[refusal(one) for one in bounded(tuple(error.problems))])
        parts.record(_entry(request, decision, parts, made))
        await asyncio.to_thread(parts.change, lambda: parts.amender.write(made))
        refused = [refusal(one) for one in parts.refused()]
        return pb.ApplyPoliciesReply(refused=refused, revision=parts.live().ruling.revision)


def _check(request: pb.ApplyPoliciesRequest) -> None:
    name = request.file.removeprefix(_BELOW)
    is_read = request.file.startswith(_BELOW) and name.endswith(_ENDS) and not name.startswith(".")  # as a folder's is
    if not is_read or not name.isprintable() or len(name) > MAX_NAME or set(name) & set("/\\"):
        raise InvalidInput([Problem("file", f"`{request.file[:80]}` is no file of policies")])
    if not WHO.fullmatch(request.who) or len(request.text) > MAX_TEXT:
        raise InvalidInput([Problem("apply", f"nothing to apply: it has an operator, and at most {MAX_TEXT} letters")])


def _decided(request: pb.ApplyPoliciesRequest, parts: MeshParts) -> Decision:
    decision = decided(parts.live(), request.who, "apply", parts.now())
    if not decision.allowed:
        parts.record(_entry(request, decision, parts, None))
        why = decision.because or "no policy lets them"
        message = f"the operators' policies do not allow `{request.who}` to apply: {why}"
        raise Forbidden(message, remedy="see operators.cedar")
    return decision


def _entry(request: pb.ApplyPoliciesRequest, decision: Decision, parts: MeshParts, made: Edit | None) -> Entry:
    detail: dict[str, Any] = {"files": [request.file]}
    if made is not None:
        detail |= {"before": request.before, "after": hash_of(request.text)}
    by, word, reasons = str(Uid("Operator", request.who)), decision.word, decision.reasons
    return operation(parts.now(), OPERATION, detail, by=by, decision=word, reasons=reasons)
