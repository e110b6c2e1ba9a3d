"""The table of a folder's checks: what was asked, expected and answered, who decided, how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from policyd.cli import output
from policyd.wording import clean

HEADERS: Final = ("CHECK", "REQUEST", "EXPECT", "GOT", "RESULT", "DECISION", "BY", "LATENCY")
GAP: Final = 2  # columns between two of the table
INDENT: Final = len("denied: ")
NONE: Final = "-"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check's outcome; `got` is 0 where nothing was answered, `problem` says what is not as expected.

    `decision` and `policy` are the journal's ("" where it has no record), `why` explains a denial.
    """

    name: str
    request: str
    expected: int
    got: int
    milliseconds: float
    problem: str = ""
    decision: str = ""
    policy: str = ""
    why: str = ""

    @property
    def passed(self) -> bool:
        """Whether all was as expected."""
        return not self.problem


def lines(outcomes: Sequence[Outcome], width: int) -> list[Any]:
    """Return what to print on `width` columns: the table, what failed, and why what was denied was denied."""
    rows = [_row(outcome) for outcome in outcomes]
    wanted = sum(max(map(len, column)) + GAP for column in zip(HEADERS, *rows, strict=True)) - GAP
    shown: list[Any] = [output.table(HEADERS, rows)] if wanted <= width else [_block(outcome) for outcome in outcomes]
    failed = [outcome for outcome in outcomes if not outcome.passed]
    shown += [f"failed: {outcome.name}: {clean(outcome.problem)}" for outcome in failed]
    shown += [f"denied: {outcome.name}: {_indented(outcome.why)}" for outcome in outcomes if outcome.why]
    count = f"{len(outcomes)} check{'s' if len(outcomes) != 1 else ''}"
    shown.append(f"{count}, {len(failed)} failed" if failed else f"{count}, all as expected")
    return shown


def as_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return the outcomes as JSON has them."""
    return [asdict(outcome) | {"passed": outcome.passed} for outcome in outcomes]


def _indented(why: str) -> str:
    """Why, and under it what would have allowed it."""
    return clean(why).replace("\n", f"\n{' ' * INDENT}")


def _block(outcome: Outcome) -> str:
    """An outcome in two lines, where the table would not fit."""
    got = f"{outcome.got or 'no answer'}, expected {outcome.expected}"
    by = f", {outcome.decision}{f' by {outcome.policy}' if outcome.policy else ''}" if outcome.decision else ""
    took = f", {outcome.milliseconds:.1f} ms" if outcome.got else ""
    result = "ok" if outcome.passed else "FAIL"
    return f"{result:<6}{clean(outcome.name)}: {clean(outcome.request)}\n      {got}{by}{took}"


def _row(outcome: Outcome) -> tuple[str, ...]:
    return (
        outcome.name,
        outcome.request,
        str(outcome.expected),
        str(outcome.got or NONE),
        "ok" if outcome.passed else "fail",
        outcome.decision or NONE,
        outcome.policy or NONE,
        f"{outcome.milliseconds:.1f} ms" if outcome.got else NONE,
    )
