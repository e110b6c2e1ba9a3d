"""Decisions: live, searched, and one of them explained."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from starlette.responses import PlainTextResponse

from policyd.audit.ask.filters import Filter
from policyd.audit.record import Record, change_of
from policyd.console.coming import coming, counted, place_of, text_of
from policyd.console.desk import Desk, desk_of, page, problems_of
from policyd.console.source import plain
from policyd.console.views import again
from policyd.console.views.explained import explain_record, first_file, form_of, headers_of
from policyd.console.wanted import CHOICES, NAMES, asks_nothing, filter_of
from policyd.errors import NotFound, PolicydError, UsageError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

SHOWN: Final = 100
MAX_SHOWN: Final = 1_000
MIN_ID: Final = 4
MAX_UNDER: Final = 64  # characters
HOPS: Final = 50
A_TICK: Final = timedelta(microseconds=1)  # so that others of the same moment are not passed over


async def decisions(request: Request) -> Response:
    """The newest that match, and a form."""
    desk, query = desk_of(request), request.query_params
    problem, is_cut, place = None, False, ""
    records: list[Record] = []
    try:
        wanted = filter_of(query, desk.now())
        count = _count(query.get("count", ""))
        records, is_cut, place = await desk.ask(_newest, desk, wanted, count)
    except PolicydError as error:
        problem, wanted, count = problems_of(error)[0], Filter(), SHOWN
    return await page(
        request,
        "decisions.html",
        200 if problem is None else 400,
        records=records,
        problem=problem,
        names=NAMES,
        choices=CHOICES,
        count=count,
        most=MAX_SHOWN,
        place=place,
        before=records[-1].time + A_TICK if is_cut and records else None,
        is_live=problem is None and not query.get("until"),
        changes={record.decision_id: change_of(record) for record in records},
    )


async def decisions_live(request: Request) -> Response:
    """What comes and matches, from where the page is; where it is held, how much."""
    desk, asked = desk_of(request), dict(request.query_params)
    after, is_held = asked.pop("after", None), bool(asked.pop("held", ""))
    after = request.headers.get("last-event-id") or after
    try:
        wanted = filter_of(asked, desk.now())
        since = None if after is None else place_of(after)
    except UsageError as error:
        return PlainTextResponse(f"{error}\n", 400)
    events = counted(desk, wanted, since) if is_held else coming(desk, wanted, since)
    answer: Response = request.app.state.streams.answer(events, request.scope["holds"])
    return answer


async def decision(request: Request) -> Response:
    """One decision in full, or the hops of a request."""
    desk, wanted = desk_of(request), request.path_params["id"]
    if len(wanted) < MIN_ID:
        raise UsageError(f"`{wanted}` is too short for an id", remedy=f"write at least {MIN_ID} digits of it")
    found = await desk.ask(desk.source.found, wanted, HOPS)
    exact = [one for one in found if one.decision_id == wanted]
    if not found:
        message = f"the journal has no decision or request `{wanted[:80]}`"
        raise NotFound(message, remedy="search for it by who asked for what")
    if len(exact) != 1 and len(found) > 1:
        return await page(request, "hops.html", records=found, wanted=wanted, changes={})
    record = (exact or found)[0]
    explained = await desk.ask(explain_record, desk, record)
    hops = await desk.ask(_hops, desk, record)
    under, replayable = request.query_params.get("under", "")[:MAX_UNDER], explained.answer is not None
    tried = await desk.ask(again.again, desk, record, under) if replayable and under else None
    return await page(
        request, "decision.html", record=record, explained=explained, facts=list(_flat(plain(record))), hops=hops,
        change=change_of(record), form=form_of(record), again=tried, under=under, headers=headers_of(record),
        choices=await desk.ask(again.choices, desk, record) if replayable else (), first_file=first_file(explained),
        trace_href=f"/traces/{quote(record.trace_id, safe='')}",
    )  # fmt: skip


def _newest(desk: Desk, wanted: Filter, count: int) -> tuple[list[Record], bool, str]:
    """The newest, whether there are more, and the place in the journal that they are before.

    From the end of the journal what asks nothing; else from a copy, which may be ahead of the place: what is behind it
    comes by itself.
    """
    until = desk.source.ends()
    if asks_nothing(wanted):
        found = [line.record for line in islice(desk.source.back(until), count)]
        return found, len(found) == count, text_of(until)
    found, last = desk.source.search(wanted, count), desk.source.last(until)
    return [one for one in found if one.seq <= last.get(one.writer, 0)], len(found) == count, text_of(until)


def _hops(desk: Desk, record: Record) -> list[Record]:
    """The other decisions of the same request, as far as they are near the end of the journal."""
    if not record.request_id:
        return []
    found = desk.source.recent(lambda one: one.request_id == record.request_id, HOPS)
    return found[::-1] if len(found) > 1 else []


def _count(text: str) -> int:
    if not text:
        return SHOWN
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) <= MAX_SHOWN):
        raise UsageError(f"`{text[:40]}` is no count", remedy=f"write 1 to {MAX_SHOWN}")
    return int(text)


def _flat(value: Mapping[str, Any], above: str = "") -> Any:
    """Nested values by their paths."""
    for name, one in value.items():
        if isinstance(one, dict) and one and "__extn" not in one and "__entity" not in one:
            yield from _flat(one, f"{above}{name}.")
        elif isinstance(one, dict) and "__extn" in one:
            yield f"{above}{name}", str(one["__extn"].get("arg", ""))
        elif isinstance(one, dict) and "__entity" in one:
            yield f"{above}{name}", f"{one['__entity'].get('type', '')}::{one['__entity'].get('id', '')}"
        elif one not in ("", [], {}, None):
            yield f"{above}{name}", ", ".join(map(str, one)) if isinstance(one, list) else str(one)
