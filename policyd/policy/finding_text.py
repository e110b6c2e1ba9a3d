"""Findings for people: the line itself, a mark under what is meant, and what to do.

Law: ten thousand findings are a summary, not ten thousand screens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from policyd.policy.finding_model import RULES, Finding

MAX_SHOWN = 50
MAX_LINE = 160  # characters of a source line that are shown


def finding_lines(findings: Sequence[Finding], texts: Mapping[str, str]) -> Iterator[str]:
    """The lines to print; `texts` are the files by name."""
    sources: dict[str, list[str]] = {}
    for one in findings[:MAX_SHOWN]:
        if one.file not in sources:
            sources[one.file] = texts.get(one.file, "").split("\n")
        yield from _shown(one, sources[one.file])
        yield ""
    more = Counter(one.code for one in findings[MAX_SHOWN:])
    for code, count in sorted(more.items()):
        yield f"{RULES[code].severity}[{code}]: {count:,} more: {RULES[code].meaning}"


def counted(findings: Sequence[Finding]) -> str:
    """How many there are of each severity, in words."""
    counts = Counter(one.severity for one in findings)
    words = [f"{counts[one]:,} {one}{'s' if counts[one] != 1 else ''}" for one in ("error", "warning", "note")]
    return ", ".join(word for word in words if not word.startswith("0 "))


def _shown(one: Finding, source: Sequence[str]) -> Iterator[str]:
    yield f"{one.severity}[{one.code}]: {one.message}"
    margin = " " * len(str(one.line))
    if one.file:
        place = ":".join(str(part) for part in (one.file, one.line, one.column) if part)
        yield f"{margin}--> {place}"
    if 0 < one.line <= len(source):
        line, mark = _excerpt(source[one.line - 1], one)
        yield f"{margin} |"
        yield f"{one.line} | {line}".rstrip()
        if one.column:
            yield f"{margin} | {mark}"
    if one.remedy:
        yield f"{margin} = {one.remedy}"


def _excerpt(line: str, one: Finding) -> tuple[str, str]:
    """The line with a mark below; of a long one the part around the mark."""
    start = max(one.column - 1, 0)
    left = max(0, start - MAX_LINE // 2) if len(line) > MAX_LINE else 0
    shown = line[left : left + MAX_LINE].rstrip("\r")
    before = "…" if left else ""
    after = "…" if left + MAX_LINE < len(line) else ""
    at = start - left + len(before)
    width = max(1, min(one.width, len(shown) - (start - left)))
    return f"{before}{shown}{after}", " " * at + "^" * width
