"""Cases and coverage as one page: nothing to load, nothing to run, light or dark as the reader likes it.

Law: every text of others is escaped; the page has no script and asks nobody for anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from policyd.policy.cases import Result
from policyd.policy.coverage import Coverage, PartCoverage, PolicyCoverage
from policyd.policy.report_style import STYLE

MAX_CASES: Final = 2_000

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def report_html(title: str, results: Sequence[Result], found: Coverage) -> str:
    """The whole page."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}: policy tests</title>",
            f"<style>{STYLE}</style></head><body><main>",
            *_head(title, results, found),
            "<h2>Policies</h2>",
            *_legend(),
            *(line for one in found.policies for line in _policy(one)),
            "<h2>Cases</h2>",
            *_cases(results),
            "</main></body></html>\n",
        ]
    )


def _head(title: str, results: Sequence[Result], found: Coverage) -> Iterator[str]:
    failed = sum(not one.passed for one in results)
    shown, there = found.points
    decided, policies = sum(bool(one.decided) for one in found.policies), len(found.policies)
    yield f"<header><h1>{escape(title)}</h1><p>Policy tests and what they cover</p></header>"
    yield '<section class="tiles">'
    yield _tile(f"{len(results) - failed:,} / {len(results):,}", "cases passed", "bad" if failed else "good")
    yield _tile(f"{found.percent:g} %", f"coverage: {shown:,} of {there:,}", _grade(shown, there))
    yield _tile(f"{decided:,} / {policies:,}", "policies decided a case", _grade(decided, policies))
    yield "</section>"
    width = f"{found.percent:g}"
    yield f'<div class="bar" role="img" aria-label="{width} % covered"><span style="width:{width}%"></span></div>'


def _tile(number: str, words: str, grade: str) -> str:
    return f'<div class="tile {grade}"><strong>{number}</strong><span>{escape(words)}</span></div>'


def _grade(shown: int, there: int) -> str:
    return "good" if shown >= there else "part" if shown else "bad"


def _legend() -> Iterator[str]:
    words = (
        ("good", "let its policy apply, and kept it from applying"),
        ("part", "one of the two"),
        ("bad", "never reached"),
    )
    marks = "".join(f'<li><mark class="{grade}">condition</mark> {text}</li>' for grade, text in words)
    yield f'<ul class="legend">{marks}</ul>'


def _policy(one: PolicyCoverage) -> Iterator[str]:
    policy = one.policy
    effect = f'<span class="effect {policy.effect}">{policy.effect}</span>'
    yield f"<article><h3><code>{escape(policy.id)}</code> {effect}</h3>"
    place = escape(f"{policy.file}:{policy.line}")
    counts = f"{one.asked} in scope, {one.applied} applied, {one.decided} decided"
    lacks = f' <em class="bad">{escape(one.lacks)}</em>' if one.lacks else ""
    yield f'<p class="place">{place} · cases: {counts}{lacks}</p>'
    yield f"<pre>{_source(one)}</pre></article>"


def _source(one: PolicyCoverage) -> str:
    """The policy as it is written, its conditions marked; where several share a place, the worst is shown."""
    text, at, pieces = one.policy.text, 0, []
    for span in sorted({part.part.span for part in one.parts}):
        worst = min((part for part in one.parts if part.part.span == span), key=_points)
        told = (
            f"reached in {worst.reached}, let it apply in {worst.held}, kept it from applying in {worst.failed} cases"
        )
        inner = escape(text[span.start : span.end])
        pieces += [
            escape(text[at : span.start]),
            f'<mark class="{_mark(worst)}" title="{escape(told)}">{inner}</mark>',
        ]
        at = span.end
    return "".join([*pieces, escape(text[at:])])


def _points(part: PartCoverage) -> tuple[int, int]:
    return bool(part.held) + bool(part.failed), part.reached


def _mark(part: PartCoverage) -> str:
    return "bad" if not part.reached else "part" if part.lacks else "good"


def _cases(results: Sequence[Result]) -> Iterator[str]:
    if not results:
        yield "<p>There are no cases.</p>"
        return
    failed_first = sorted(results, key=lambda one: one.passed)
    heads = "".join(f"<th>{word}</th>" for word in ("Result", "Case", "Request", "Decision"))
    yield f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>'
    yield from (_row(one) for one in failed_first[:MAX_CASES])
    yield "</tbody></table></div>"
    if len(results) > MAX_CASES:
        yield f"<p>and {len(results) - MAX_CASES:,} more</p>"


def _row(one: Result) -> str:
    case, decision = one.case, one.decision
    grade, word = ("good", "passed") if one.passed else ("bad", "failed")
    by = ", ".join(f"<code>{escape(reason)}</code>" for reason in decision.reasons) if decision else ""
    got = f"{decision.word}{f' by {by}' if by else ''}" if decision else "none"
    why = "".join(f'<br><em class="bad">{escape(text)}</em>' for text in one.different)
    place = f"<br><small>{escape(f'{case.file}:{case.line}')}</small>"
    return (
        f'<tr><td><span class="badge {grade}">{word}</span></td><td>{escape(case.name)}{place}</td>'
        f"<td><code>{escape(case.asked)}</code></td><td>{got}{why}</td></tr>"
    )
