"""Spans to start from; each test changes what matters to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from policyd.telemetry.traces import Span

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
MS: Final = 1_000_000
AT: Final = 1_760_000_000_000 * MS

GOOD: Final = Span(TRACE, "a" * 16, "", "ingress", "web.default", "server", AT, AT + 10 * MS)


def span(name: str, parent: str = "", start: float = 0, end: float = 10, **more: Any) -> Span:
    """A span whose id is sixteen times its name's letter, from and to these milliseconds."""
    made = replace(GOOD, name=name, span_id=name[0] * 16, parent_id=parent[:1] * 16)
    return replace(made, start=AT + round(start * MS), end=AT + round(end * MS), **more)
