"""The options `--since` and `--until`, and the time between them as it is meant here and now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from policyd.audit.scan import Span

Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="From then on: `1h` (ago), `yesterday`, `2026-11-23`, RFC 3339.")
]
Until = Annotated[str, typer.Option("--until", metavar="TIME", help="Before then.")]


def here(since: str, until: str) -> Span:
    """The time from `since` to `until` as `policyd.audit.moments.span` reads it in this machine's zone.

    Raises UsageError.
    """
    from policyd.audit.moments import span

    now = datetime.now(UTC)
    zone = now.astimezone().tzinfo
    assert zone is not None
    return span(since, until, now, zone)
