"""A decision in words: why, and for a denial what would have allowed it."""

from __future__ import annotations

from typing import Any

from policyd.authz.ruling import Ruling
from policyd.cedar.http import HttpFacts
from policyd.cli.output import clean
from policyd.errors import PolicydError
from policyd.policy.authorize import Answer, answer


def explain(facts: HttpFacts, ruling: Ruling) -> str:
    """Why a request is denied, in a line; "" where it would not be."""
    try:
        found = answer(facts, ruling)
    except PolicydError as error:
        return str(error)
    if found.decision.allowed:
        return ""
    near = "; ".join(str(miss) for miss in found.near)
    return f"{found.why}; {near}" if near else found.why


def lines(found: Answer) -> list[str]:
    """What to print of a decision: the word, why, the policies as they are written, what came near."""
    shown = [f"{found.decision.word}: {clean(found.why)}"]
    for policy in found.reasons:
        shown += ["", f"{policy.file}:{policy.line}", *(f"  {clean(line)}" for line in policy.text.splitlines())]
    if found.near:
        shown += ["", "what comes nearest to allowing it:", *(f"  {clean(str(miss))}" for miss in found.near)]
    shown += [f"error: `{error.policy}` failed: {clean(error.message)}" for error in found.decision.errors]
    return shown


def as_json(found: Answer) -> dict[str, Any]:
    """The decision as JSON has it."""
    return {
        "decision": found.decision.word,
        "why": found.why,
        "reasons": [
            {"id": policy.id, "effect": policy.effect, "file": policy.file, "line": policy.line, "text": policy.text}
            for policy in found.reasons
        ],
        "near": [
            {"id": miss.policy.id, "file": miss.policy.file, "line": miss.policy.line, "missing": list(miss.missing)}
            for miss in found.near
        ],
        "errors": [{"policy": error.policy, "message": error.message} for error in found.decision.errors],
        "principal": str(found.request.principal),
        "action": str(found.request.action),
        "resource": str(found.request.resource),
    }
