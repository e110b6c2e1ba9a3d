"""What the shadow policies say of a request that was just decided: put beside the enforced answer, and nothing else.

Law: it changes no decision, breaks none and holds none up beyond a bound. Whatever goes wrong here is the shadow's own
error; a caller who hardly waits any more, or a `Budget` that is used up, goes before; and an entry that could no
longer be recorded is recorded without it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from threading import Lock
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from policyd.audit.record import MAX_LINE_BYTES, Entry, Fault, Shadow
from policyd.authz.record import Outcome, read_of
from policyd.authz.ruling import Ruling
from policyd.cedar.model import Decision, Request
from policyd.errors import DecisionError, PolicydError, ShadowSkipped

SPARE_SECONDS: Final = 0.02  # that a caller still waits at the least
SHARE: Final = 0.25  # of all time, that shadow decisions may take
ALLOWANCE: Final = 0.02  # seconds that they may take at once
MAX_REASONS: Final = 64
MAX_ERRORS: Final = 16
MAX_MESSAGE: Final = 512  # characters
MAX_ENTRY_BYTES: Final = MAX_LINE_BYTES - (64 << 10)  # what the journal adds, and masks, has room

Read = Callable[[Collection[str]], Mapping[str, str]]

_encode: Final = msgspec.json.Encoder().encode


class Budget:
    """The time that shadow decisions may take: a debt that each adds to, and that time pays off. Safe for threads."""

    def __init__(self) -> None:
        self._debt = 0.0
        self._at = 0.0
        self._lock = Lock()

    def is_left(self, now: float) -> bool:
        """Whether there is time for another one at `now`, in seconds of a clock that never goes back."""
        with self._lock:
            self._debt = max(0.0, self._debt - max(0.0, now - self._at) * SHARE)
            self._at = now
            return self._debt <= ALLOWANCE

    def spend(self, seconds: float) -> None:
        """One took so long."""
        with self._lock:
            self._debt += seconds


class ShadowSide:
    """Asks the shadow policies. Safe for concurrent use.

    `stopwatch` tells seconds of no date, `effort` those that the calling thread has worked.
    """

    def __init__(self, stopwatch: Callable[[], float], effort: Callable[[], float]) -> None:
        self._stopwatch = stopwatch
        self._effort = effort
        self._budget = Budget()

    def beside(self, entry: Entry, outcome: Outcome, read: Read, left: float | None) -> Entry:
        """`entry`, the record of `outcome`, with what the shadow of its ruling decides, if it has one; raises nothing.

        `read` gives the headers of the check that are named; `left` is how long its caller still waits.
        """
        if outcome.ruling is None or outcome.ruling.shadow is None:
            return entry
        shadow = outcome.ruling.shadow
        try:
            if left is not None and left < SPARE_SECONDS:
                raise ShadowSkipped("the caller would not have waited for the shadow policies")
            if not self._budget.is_left(self._stopwatch()):
                raise ShadowSkipped("the shadow policies took too much time lately")
            return _fitting(self._decided(entry, outcome, shadow, read))
        except PolicydError as error:
            return _failed(entry, shadow, error)
        except Exception as error:  # noqa: BLE001 - a fault on this side is this side's own
            return _failed(entry, shadow, DecisionError(f"an unforeseen fault: {type(error).__name__}"))

    def _decided(self, entry: Entry, outcome: Outcome, shadow: Ruling, read: Read) -> Entry:
        before = self._effort()
        try:
            question = shadow.engine.question(_request(outcome, shadow, read))
            decision = shadow.engine.answer(question)
            context = union(entry.context, read_of(question.request))
        finally:
            took = self._effort() - before
            self._budget.spend(took)
        return replace(entry, context=context, shadow=_shadow(decision, shadow.revision, round(took * 1e6)))


def _request(outcome: Outcome, shadow: Ruling, read: Read) -> Request:
    """The same question, with headers that only the shadow reads read apart: they must not fail the active answer."""
    if outcome.query is None or outcome.asked is None or outcome.ruling is None:
        raise DecisionError("the active policies were asked nothing")
    known = shadow.headers_read <= outcome.ruling.headers_read
    return shadow.same_request(outcome.asked, outcome.query.facts.headers if known else read(shadow.headers_read))


def union(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What either of two parts of the same context has."""
    joined = dict(one)
    for name, value in other.items():
        known = joined.get(name)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            joined[name] = union(known, value)
        else:
            joined.setdefault(name, value)
    return joined


def _shadow(decision: Decision, revision: str, took_us: int) -> Shadow:
    reasons, errors = decision.reasons[:MAX_REASONS], decision.errors[:MAX_ERRORS]
    return Shadow(
        decision=decision.word,
        reasons=reasons,
        errors=tuple(Fault(error.policy, error.message[:MAX_MESSAGE]) for error in errors),
        omitted=len(decision.reasons) - len(reasons) + len(decision.errors) - len(errors),
        revision=revision,
        cached=decision.cached,
        duration_us=took_us,
    )


def _failed(entry: Entry, shadow: Ruling, error: PolicydError) -> Entry:
    fault = Fault(error.code, error.message[:MAX_MESSAGE])
    return replace(entry, shadow=Shadow(decision="error", errors=(fault,), revision=shadow.revision))


def _fitting(entry: Entry) -> Entry:
    """The entry, if the journal can keep it; raises DecisionError."""
    size = len(_encode(entry))
    if size > MAX_ENTRY_BYTES:
        raise DecisionError(f"with what the shadow policies read a record would have {size} bytes")
    return entry
