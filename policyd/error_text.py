"""An error as people and programs are told it: every problem of an invalid input, else the message and its remedy.

Law: no control character of others' text is in a line for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from policyd.errors import InvalidInput, PolicydError, Problem
from policyd.wording import clean

MAX_PROBLEMS: Final = 50  # that people are shown


def error_value(error: PolicydError) -> dict[str, Any]:
    """Return an error as `--json` shows it."""
    value: dict[str, Any] = {"code": error.code, "message": error.message, "remedy": error.remedy}
    if isinstance(error, InvalidInput):
        value["problems"] = [
            {
                "code": problem.code,
                "message": problem.message,
                "file": problem.file,
                "line": problem.line,
                "remedy": problem.remedy,
            }
            for problem in error.problems
        ]
    return {"error": value}


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """Return a line a problem; of very many the first, and how many more there are of each kind."""
    lines = [clean(str(problem)) for problem in problems[:MAX_PROBLEMS]]
    more = Counter(problem.code for problem in problems[MAX_PROBLEMS:])
    if more:
        kinds = ", ".join(f"{count:,} `{code}`" for code, count in sorted(more.items()))
        lines.append(f"and {more.total():,} more: {kinds}; `--json` has all")
    return lines


def error_lines(error: PolicydError) -> list[str]:
    """Return what people are told, a line or more."""
    if isinstance(error, InvalidInput):
        count = len(error.problems)
        if count == 1 and not error.problems[0].file:  # of the command line itself: told as its other errors are
            return _told(error.problems[0].message, error.problems[0].remedy)
        return [*problem_lines(error.problems), f"error: {count:,} problem{'s' if count > 1 else ''} found"]
    return _told(error.message, error.remedy)


def _told(message: str, remedy: str) -> list[str]:
    first, *more = message.split("\n")
    lines = [f"error: {clean(first)}", *map(clean, more)]
    return [*lines, f"  {clean(remedy)}"] if remedy else lines
