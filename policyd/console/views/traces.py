"""Traces: those of the last while, and one of them as a waterfall."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from policyd._pb import admin_pb2 as pb
from policyd.console.desk import Desk, desk_of, page
from policyd.errors import UsageError
from policyd.strict import parse_duration
from policyd.telemetry.traces import ASKS_POLICYD

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

SHOWN: Final = 100
MAX_SPANS: Final = 500  # of one trace on a page
MAX_DEPTH: Final = 24  # that is indented
HTTP: Final = ("http.method", "http.url", "http.status_code")
_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Bar:
    """A span: its row, where its bar begins and how long it is in hundredths, and what it says of its request."""

    row: pb.TraceRow
    left: float
    width: float
    indent: int
    said: str
    tags: Mapping[str, str]


async def traces(request: Request) -> Response:
    """The newest that are asked for, and how full the window is."""
    desk, query = desk_of(request), request.query_params
    wanted = pb.TracesRequest(
        service=query.get("service", "").strip()[:300],
        denied=query.get("denied") == "1",
        failed=query.get("failed") == "1",
        slower_ns=_nanoseconds(query.get("slower", "").strip()[:40]),
        limit=SHOWN,
    )
    reply = await desk.ask(_traces, desk, wanted)
    longest = max((one.duration_ns for one in reply.traces), default=1) or 1
    return await page(request, "traces.html", reply=reply, longest=longest)


async def trace(request: Request) -> Response:
    """One trace."""
    desk, wanted = desk_of(request), request.path_params["id"].lower()
    if not _ID.fullmatch(wanted):
        raise UsageError(f"`{wanted[:80]}` is no trace", remedy="it has 32 digits, 0 to 9 and a to f")
    reply = await desk.ask(_trace, desk, wanted)
    return await page(request, "trace.html", reply=reply, bars=bars(reply)[:MAX_SPANS], asks=ASKS_POLICYD)


def bars(reply: pb.TraceReply) -> list[Bar]:
    """The rows of a trace as bars over its whole duration."""
    whole = max(reply.summary.duration_ns, 1)

    def at(nanoseconds: int) -> float:
        return round(min(max(nanoseconds / whole, 0.0), 1.0) * 100, 2)

    found = []
    for row in reply.rows:
        tags = {tag.name: tag.value for tag in row.tags}
        left = min(at(row.offset_ns), 99.5)
        width = min(max(at(row.duration_ns), 0.5), 100 - left)
        said = " ".join(_short(tags[name]) for name in HTTP if name in tags)
        found.append(Bar(row, left, round(width, 2), min(row.depth, MAX_DEPTH), said, tags))
    return found


def _short(text: str) -> str:
    """Of an address its path; where it was sent the span's name says."""
    parts = text.split("/", 3)
    return f"/{parts[3]}" if text.startswith(("http://", "https://")) and len(parts) > 3 else text


def _traces(desk: Desk, wanted: pb.TracesRequest) -> pb.TracesReply:
    with desk.source.client() as client:
        return client.traces(wanted)


def _trace(desk: Desk, wanted: str) -> pb.TraceReply:
    with desk.source.client() as client:
        return client.trace(wanted)


def _nanoseconds(text: str) -> int:
    try:
        return round(parse_duration(text) * 1e9) if text else 0
    except (ValueError, OverflowError) as error:
        raise UsageError(f"slower than: {error}") from None
