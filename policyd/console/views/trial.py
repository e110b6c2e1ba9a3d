"""Policies on trial: what would change if they were in force, of the requests that were decided meanwhile."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

from policyd.audit.moments import span
from policyd.audit.scan import scan
from policyd.console.desk import Desk, desk_of, page
from policyd.policy.shadow_report import LATEST, NOTHING, Report, latest, report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from policyd.audit.record import Record
    from policyd.audit.scan import Span

RANGES: Final = ("15m", "1h", "24h", "7d")
DEFAULT: Final = "1h"
MAX_ROWS: Final = 200


async def trial(request: Request) -> Response:
    """The report of a range of time, under all revisions that were on trial or the last one."""
    desk, query = desk_of(request), request.query_params
    since = query["since"] if query.get("since") in RANGES else DEFAULT
    only = LATEST if query.get("revision") == LATEST else ""
    found = await desk.ask(_report, desk, span(since, "", desk.now(), UTC), only)
    return await page(
        request, "trial.html", found=found, rows=found.rows[:MAX_ROWS], ranges=RANGES, since=since, only=only,
        nothing=NOTHING,
    )  # fmt: skip


def _report(desk: Desk, within: Span, only: str) -> Report:
    def records() -> Iterator[Record]:
        if not desk.source.journal.is_dir():
            return iter(())
        return (line.record for line in scan(desk.source.journal, within).lines(lambda error: None))

    return report(records(), latest(records()) if only else "")
