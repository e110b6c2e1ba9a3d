"""The table of a folder's checks: what was asked, expected and answered, who decided, how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from policyd.cli import output

HEADERS: Final = ("CHECK", "REQUEST", "EXPECT", "GOT", "RESULT", "DECISION", "BY", "LATENCY")
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


def lines(outcomes: Sequence[Outcome]) -> list[Any]:
    """Return what to print: the table, what failed, and why what was denied was denied."""
    shown: list[Any] = [output.table(HEADERS, [_row(outcome) for outcome in outcomes])]
    failed = [outcome for outcome in outcomes if not outcome.passed]
    shown += [f"failed: {outcome.name}: {output.clean(outcome.problem)}" for outcome in failed]
    shown += [f"denied: {outcome.name}: {output.clean(outcome.why)}" for outcome in outcomes if outcome.why]
    count = f"{len(outcomes)} check{'s' if len(outcomes) != 1 else ''}"
    shown.append(f"{count}, {len(failed)} failed" if failed else f"{count}, all as expected")
    return shown


def as_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return the outcomes as JSON has them."""
    return [asdict(outcome) | {"passed": outcome.passed} for outcome in outcomes]


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
