"""One policy case, whatever form it was written in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from policyd.cedar.http import HttpFacts
from policyd.cedar.model import Request

MAX_CASES: Final = 20_000  # of a folder
Expected = Literal["allow", "deny"]


@dataclass(frozen=True, slots=True)
class Case:
    """A question and the answer that is expected: the decision, policies that have to be among its reasons,
    and how many policies fail on the way. `asked` is the question as people read it.
    """

    name: str
    asked: str
    question: HttpFacts | Request
    expect: Expected
    by: tuple[str, ...] = ()
    errors: int = 0
    file: str = ""
    line: int = 0
