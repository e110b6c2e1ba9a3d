"""Coverage in words: what no case shows, each at its place, and the sum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policyd.policy.coverage import Coverage, PartCoverage, PolicyCoverage

MAX_SHOWN = 100
MAX_TEXT = 80


def coverage_lines(found: Coverage) -> Iterator[str]:
    """The lines to print: what is lacking, then the sum."""
    lacking = list(_lacking(found))
    yield from lacking[:MAX_SHOWN]
    if len(lacking) > MAX_SHOWN:
        yield f"and {len(lacking) - MAX_SHOWN:,} more"
    shown, there = found.points
    decided = f"{sum(bool(one.decided) for one in found.policies)} of {len(found.policies)}"
    yield f"coverage {found.percent:g} %: {shown} of {there}; {decided} policies decided a case"


def coverage_value(found: Coverage) -> dict[str, Any]:
    """Coverage as JSON has it."""
    return {"percent": found.percent, "policies": [_policy_value(one) for one in found.policies]}


def text_of(policy: PolicyCoverage, part: PartCoverage) -> str:
    """A condition as it is written, in one line."""
    text = " ".join(policy.policy.text[part.part.span.start : part.part.span.end].split())
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def line_of(policy: PolicyCoverage, part: PartCoverage) -> int:
    """The line of its file on which a condition starts."""
    return policy.policy.line + policy.policy.text.count("\n", 0, part.part.span.start)


def _lacking(found: Coverage) -> Iterator[str]:
    for one in found.policies:
        policy = one.policy
        if one.lacks:
            yield f"{policy.file}:{policy.line}: `{policy.id}` {one.lacks}"
        if one.asked:  # else nothing is said by saying it of each condition
            for part in one.parts:
                if part.lacks:
                    yield f"{policy.file}:{line_of(one, part)}: `{text_of(one, part)}` {part.lacks}"


def _policy_value(one: PolicyCoverage) -> dict[str, Any]:
    parts = [
        {
            "kind": part.part.kind,
            "text": text_of(one, part),
            "line": line_of(one, part),
            "reached": part.reached,
            "held": part.held,
            "failed": part.failed,
        }
        for part in one.parts
    ]
    policy = one.policy
    counts = {"asked": one.asked, "applied": one.applied, "decided": one.decided}
    return {"id": policy.id, "file": policy.file, "line": policy.line, **counts, "conditions": parts}
