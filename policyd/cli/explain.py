"""A decision in words: why, and for a denial what would have allowed it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from policyd.authz.ruling import Ruling
from policyd.cedar.http import HttpFacts
from policyd.cedar.policies import Policy
from policyd.errors import PolicydError
from policyd.policy.authorize import Answer, answer
from policyd.policy.explain import Explanation
from policyd.policy.nearest import ClauseMiss, NearMiss
from policyd.policy.remedies import Remedy
from policyd.wording import clean

WOULD: Final = "would be allowed with "

_SUBJECTS: Final = {"principal": "caller", "action": "method", "resource": "service"}


def explain(facts: HttpFacts, ruling: Ruling) -> str:
    """Why a request is denied, and on a second line what would allow it; "" where it would not be denied."""
    try:
        found = answer(facts, ruling).explanation
    except PolicydError as error:
        return str(error)
    return "" if found.decision.allowed else "\n".join(_told(found))


def lines(found: Answer) -> list[str]:
    """What to print: the word and why, what would allow it, then policies as they are written, and what came near."""
    explanation = found.explanation
    why, *would = _told(explanation)
    shown = [
        f"{found.decision.word}: {clean(why)}",
        *map(clean, would),
        *(f"note: {clean(note)}" for note in found.notes),
    ]
    for reason in explanation.reasons:
        shown += ["", *_policy(reason.policy), *(f"    {_met(part)}" for part in reason.met)]
    if explanation.near:
        shown += ["", "what comes nearest to allowing it:"]
        for miss in explanation.near:
            shown += _near(miss)
    if len(explanation.remedies) > 1:
        shown += [
            "",
            "it would have been allowed with any of these:",
            *(f"  {clean(str(one))}" for one in explanation.remedies),
        ]
    if explanation.proposal:
        shown += ["", "a policy that would allow exactly this, and nothing else:", *_indented(explanation.proposal)]
    shown += [f"error: `{error.policy}` failed: {clean(error.message)}" for error in found.decision.errors]
    return shown


def all_lines(found: Answer, shadow: Answer | None) -> list[str]:
    """As `lines`, and below what the shadow policies say where there are some: briefly, if it is the same."""
    if shadow is None:
        return lines(found)
    told, same = lines(shadow), _decided(shadow) == _decided(found)
    below = [f"the shadow policies: {told[0]}"] if same else ["the shadow policies:", *(f"  {one}" for one in told)]
    return [*lines(found), "", *below]


def _decided(found: Answer) -> tuple[str, tuple[str, ...]]:
    return found.decision.word, found.decision.reasons


def all_json(found: Answer, shadow: Answer | None) -> dict[str, Any]:
    """As `as_json`, and what the shadow policies say where there are some."""
    return as_json(found) | ({} if shadow is None else {"shadow": as_json(shadow)})


def as_json(found: Answer) -> dict[str, Any]:
    """The decision as JSON has it."""
    explanation = found.explanation
    return {
        "decision": found.decision.word,
        "why": explanation.why,
        "would_allow": explanation.would,
        "reasons": [
            _place(one.policy)
            | {"effect": one.policy.effect, "text": one.policy.text, "met": [_clause(part) for part in one.met]}
            for one in explanation.reasons
        ],
        "near": [_miss(miss) for miss in explanation.near],
        "remedies": [_remedy(one) for one in explanation.remedies],
        "proposal": explanation.proposal,
        "errors": [{"policy": error.policy, "message": error.message} for error in found.decision.errors],
        "notes": list(found.notes),
        "principal": str(found.request.principal),
        "action": str(found.request.action),
        "resource": str(found.request.resource),
    }


def _told(explanation: Explanation) -> Iterator[str]:
    yield explanation.why
    if explanation.would:
        yield f"{WOULD}{explanation.would}"


def _policy(policy: Policy) -> list[str]:
    return [f"{policy.file}:{policy.line}", *_indented(policy.text)]


def _indented(text: str) -> list[str]:
    return [f"  {clean(line)}" for line in text.splitlines()]


def _met(part: ClauseMiss) -> str:
    return clean(f"line {part.line}: {part}")


def _near(miss: NearMiss) -> Iterator[str]:
    yield clean(f"  `{miss.policy.id}` ({miss.policy.file}:{miss.policy.line})")
    for scope in miss.scope:
        yield clean(f"    {scope.part} {scope.wants}: the {_SUBJECTS[scope.part]} is {scope.has}")
    for failed in miss.failed:
        yield clean(f"    line {failed.line}: {failed}")


def _place(policy: Policy) -> dict[str, Any]:
    return {"id": policy.id, "file": policy.file, "line": policy.line}


def _clause(part: ClauseMiss) -> dict[str, Any]:
    seen = {one.name: one.value for one in part.seen}
    return {"kind": part.kind, "text": part.text, "line": part.line, "got": part.got, "seen": seen}


def _miss(miss: NearMiss) -> dict[str, Any]:
    return _place(miss.policy) | {
        "missing": list(miss.missing),
        "scope": [asdict(one) for one in miss.scope],
        "failed": [_clause(part) for part in miss.failed],
    }


def _remedy(remedy: Remedy) -> dict[str, Any]:
    return {
        "words": remedy.words,
        "changes": [asdict(change) for change in remedy.changes],
        "by": list(remedy.by),
        "without": list(remedy.without),
    }
