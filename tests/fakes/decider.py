"""A policy engine that says what it is told to say, and keeps what it was asked."""

from __future__ import annotations

from policyd.cedar.model import Decision, Request
from policyd.errors import DecisionError


class Decider:
    """Call it with a request; `decision` is the answer, and `broken` makes it fail."""

    def __init__(self) -> None:
        self.decision = Decision(True, ("issue-registered",))
        self.broken = False
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> Decision:
        if self.broken:
            raise DecisionError("the engine failed")
        self.asked.append(request)
        return self.decision
