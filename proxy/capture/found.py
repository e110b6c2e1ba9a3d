"""What is installed of a capture, against what was asked for.

Law: pure. Rules are known by what is said of them; who takes one away, adds one or moves one is found out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from proxy.capture.plan import Way, digest

Verdict = Literal["absent", "as asked", "other", "broken"]
Said = tuple[tuple[Way, str], ...]
_MARK: Final = re.compile(r"policyd capture ([0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class Found:
    """What there is, in words, and what to think of it."""

    verdict: Verdict
    lines: tuple[str, ...]


def judge(said: Said, asked: str | None = None) -> Found:
    """Compare what is installed with the digest of a plan; without one, with what it calls itself."""
    if not said:
        return Found("absent", ("nothing is captured",))
    marks = {match[1] for _, text in said if (match := _MARK.fullmatch(text))}
    rules = tuple((way, text) for way, text in said if not _MARK.fullmatch(text))
    lines = tuple(f"{way}: {text or 'a rule that is not ours'}" for way, text in rules)
    if len(marks) != 1 or digest(rules) not in marks or not _is_marked(said):
        return Found("broken", (*lines, "this is not what was installed; install it again"))
    if asked is not None and asked not in marks:
        return Found("other", (*lines, "this is not what is asked for; install it again"))
    return Found("as asked", lines)


def _is_marked(said: Said) -> bool:
    """Whether each chain begins with its mark, and has no other."""
    for way in {way for way, _ in said}:
        texts = [text for one, text in said if one == way]
        if [bool(_MARK.fullmatch(text)) for text in texts] != [True, *([False] * (len(texts) - 1))]:
            return False
    return True
