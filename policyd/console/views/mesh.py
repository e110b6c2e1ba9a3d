"""Mesh: proxies and whether they took what they were sent, resources, analysis, and the way of one request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import yaml

from policyd.audit.ask.filters import Filter
from policyd.audit.scan import Span
from policyd.console.desk import Desk, desk_of, page, part, problems_of
from policyd.console.live import event
from policyd.console.playground import headers_of
from policyd.errors import NotRunning, PolicydError, StateError, UsageError
from policyd.offline.examined import examined
from policyd.offline.loaded import NOWHERE, load_folder
from policyd.way.entry import way_of
from policyd.way.follow import Follower
from policyd.way.model import is_denied, is_lost
from policyd.way.text import lines as way_lines
from policyd.xds.inspection.held import unpack
from policyd.xds.inspection.kind import Kind
from policyd.xds.inspection.rows import HEADERS, rows
from policyd.xds.inspection.words import TYPES, word

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from policyd.audit.record import Record
    from policyd.policy.finding_model import Finding

LOOK_SECONDS: Final = 2.0
MAX_ROWS: Final = 1_000
HELD: Final = ("routes", "listeners", "clusters", "endpoints")
MAX_FINDINGS: Final = 200
ALARMED: Final = timedelta(days=1)
OF_SIDECARS: Final = "local."  # operations


async def mesh(request: Request) -> Response:
    """The page; the section is in the address."""
    desk = desk_of(request)
    return await page(request, "mesh.html", proxies=await desk.ask(_proxies, desk), types=TYPES)


async def mesh_live(request: Request) -> Response:
    """The proxies, whenever something about them changes."""
    desk = desk_of(request)
    events = _as_they_change(desk)
    answer: Response = request.app.state.streams.answer(events, request.scope["holds"])
    return answer


async def proxy(request: Request) -> Response:
    """What one proxy holds of a kind, in its own words."""
    desk, name = desk_of(request), request.path_params["id"]
    kind = request.query_params.get("kind", "routes")
    if kind not in HEADERS or kind == "secrets":
        raise UsageError(f"`{kind[:40]}` is no kind that is shown", remedy=f"it is one of {', '.join(HELD)}")
    found = await desk.ask(_held, desk, name, kind)
    return await page(request, "proxy.html", name=name, kind=kind, kinds=HELD, heads=HEADERS[kind],
                      rows=found[:MAX_ROWS], count=len(found))  # fmt: skip


async def resources(request: Request) -> Response:
    """What is in force, as it was written."""
    desk, query = desk_of(request), request.query_params
    kind, wanted = query.get("kind", "")[:100], query.get("q", "")[:200].lower()
    every = await desk.ask(_resources, desk)
    found = [
        one for one in every if kind in ("", one["kind"]) and (wanted in f"{one['namespace']}/{one['name']}".lower())
    ]
    kinds = sorted({one["kind"] for one in every})
    return await page(request, "resources.html", resources=found[:MAX_ROWS], count=len(found), kinds=kinds, kind=kind,
                      wanted=wanted)  # fmt: skip


async def analysis(request: Request) -> Response:
    """What does not work in the folder as it is, and what is probably not meant."""
    desk = desk_of(request)
    findings, alarms = await desk.ask(_analysis, desk), await desk.ask(_alarms, desk)
    return await page(request, "analysis.html", findings=findings[:MAX_FINDINGS], count=len(findings), alarms=alarms)


async def routes(request: Request) -> Response:
    """The way of one request."""
    desk, query = desk_of(request), request.query_params
    asked, headers = query.get("request", "").strip()[:2_000], query.get("headers", "")[:4_000]
    problem: Sequence[Any] | None = None
    lines: list[str] = []
    outcome = ""
    if asked:
        try:
            lines, outcome = await desk.ask(_way, desk, asked, headers)
        except PolicydError as error:
            problem = problems_of(error)
    return await page(request, "routes.html", asked=asked, headers=headers, lines=lines, outcome=outcome,
                      problem=problem)  # fmt: skip


def _alarms(desk: Desk) -> Sequence[Record]:
    """Where sidecars decided otherwise than policyd, or what they decided is not on record; of the last day."""
    wanted = Filter(Span(desk.now() - ALARMED, None), kind="operation", decision="error")
    found = desk.source.search(wanted, MAX_FINDINGS)
    return [one for one in found if str(one.detail.get("operation", "")).startswith(OF_SIDECARS)]


def _proxies(desk: Desk) -> Sequence[Any]:
    """Each proxy with the word for each type; none where no server answers."""
    try:
        with desk.source.client() as client:
            proxies, places = client.proxies(), {one.name: one for one in client.instances()}
    except (NotRunning, StateError):
        return ()
    found = []
    for proxy in proxies:
        states = {one.type: one for one in proxy.types}
        place = places.get(proxy.instance)
        cells = [(name, word(states.get(name)), states[name].resources if name in states else 0) for name in TYPES]
        rejected = [(one.type, one.rejection, one.changed_at) for one in proxy.types if one.rejection]
        found.append({"proxy": proxy, "place": place, "cells": cells, "rejected": rejected})
    return sorted(found, key=lambda one: (not one["rejected"], one["proxy"].connected, one["proxy"].instance))


async def _as_they_change(desk: Desk) -> AsyncIterator[bytes]:
    shown = ""
    while True:
        now = part("proxies.html", proxies=await desk.ask(_proxies, desk), types=TYPES, now=desk.now())
        if now != shown:
            shown = now
            yield event("proxies", now)
        await desk.pause(LOOK_SECONDS)


def _held(desk: Desk, name: str, kind: str) -> list[tuple[str, ...]]:
    with desk.source.client() as client:
        held = unpack(client.inspect(name, kind).held)
    return list(rows(Kind(kind), held))


def _resources(desk: Desk) -> list[dict[str, Any]]:
    with desk.source.client() as client:
        found = client.resources()
    return [
        {
            "kind": one.kind,
            "namespace": one.namespace,
            "name": one.name,
            "file": one.file,
            "line": one.line,
            "text": yaml.safe_dump(json.loads(one.json), sort_keys=False, allow_unicode=True, width=100),
        }
        for one in found
    ]


def _analysis(desk: Desk) -> list[Finding]:
    return examined(desk.source.directory, frozenset())[0]


def _way(desk: Desk, asked: str, headers: str) -> tuple[list[str], str]:
    live = load_folder(desk.source.directory, cases=False).live
    follower = Follower(live, NOWHERE, desk.now(), None)
    way = way_of(asked, follower, live.mesh, headers_of(headers))
    outcome = "deny" if is_denied(way) else "lost" if is_lost(way) else "allow"
    return way_lines(way, live.mesh), outcome
