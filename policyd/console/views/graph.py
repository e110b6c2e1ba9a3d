"""The graph: who calls whom, live and over a range of time; an edge leads to its requests."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup
from starlette.responses import HTMLResponse

from policyd.audit.ask.filters import Filter
from policyd.audit.match import entity_id
from policyd.audit.moments import moment
from policyd.audit.scan import Span
from policyd.console.desk import Desk, desk_of, page, part
from policyd.console.graph.drawing import Drawing, draw
from policyd.console.graph.layout import Layout, lay_out
from policyd.console.graph.picture import (
    By,
    Link,
    Node,
    Picture,
    default_by,
    focused,
    of_namespace,
    picture,
    without_idle,
)
from policyd.console.live import event
from policyd.console.wanted import holds
from policyd.telemetry.graph import OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from policyd._pb import admin_pb2 as pb
    from policyd.audit.record import Record

RANGES: Final[Mapping[str, float]] = {
    "10s": 10,
    "1m": 60,
    "5m": 300,
    "15m": 900,
    "1h": 3600,
    "6h": 21_600,
    "24h": 86_400,
}
DEFAULT_RANGE: Final = "1m"
LATEST: Final = 12  # decisions beside an edge
WITHIN: Final = 3_000  # records of the end of the journal among which they are looked for
_NUMBER: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
ANONYMOUS: Final = 'Unauthenticated::"anonymous"'


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address bar says."""

    range: str = DEFAULT_RANGE
    by: str = ""
    focus: str = ""
    namespace: str = ""
    busy: bool = False
    edge: str = ""
    until: str = ""  # when the range ended, as people write it; "" for now

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Asked:
        """Read a query; what means nothing is the default."""
        return cls(
            until=query.get("until", "").strip()[:40],
            range=query["range"] if query.get("range") in RANGES else DEFAULT_RANGE,
            by=query["by"] if query.get("by") in ("version", "service") else "",
            focus=query.get("focus", "")[:300],
            namespace=query.get("namespace", "")[:300],
            busy=query.get("busy") == "1",
            edge=query.get("edge", "")[:600],
        )

    @property
    def query(self) -> dict[str, str | None]:
        """As the address bar has it."""
        return {
            "range": self.range if self.range != DEFAULT_RANGE else None,
            "by": self.by or None,
            "focus": self.focus or None,
            "namespace": self.namespace or None,
            "busy": "1" if self.busy else None,
            "edge": self.edge or None,
            "until": self.until or None,
        }

    @property
    def seconds(self) -> float:
        """How long the range is."""
        return RANGES[self.range]

    def ended(self, now: datetime) -> float:
        """How many seconds ago the range ended; raises UsageError for what is no moment."""
        return max((now - moment(self.until, now, UTC)).total_seconds(), 0.0) if self.until else 0.0


@dataclass(frozen=True, slots=True)
class Shown:
    """All that the page shows of a moment."""

    asked: Asked
    by: By
    standard_by: By  # where nobody asks for one
    whole: Picture
    drawing: Drawing
    link: Link | None
    namespaces: tuple[str, ...]
    trouble: str
    begins: datetime | None = None
    ends: datetime | None = None
    now: datetime | None = None

    @property
    def earlier(self) -> str:
        """When the range before this one ended, as an address has it."""
        return f"{self.begins:%Y-%m-%dT%H:%M:%SZ}" if self.begins else ""

    @property
    def later(self) -> str:
        """When the range after this one ends; "" where that is not before now."""
        after = self.ends + timedelta(seconds=self.asked.seconds) if self.ends else None
        return f"{after:%Y-%m-%dT%H:%M:%SZ}" if after and self.now and after < self.now else ""


def shown(desk: Desk, asked: Asked) -> Shown:
    """What is asked for out of the last looks, drawn once."""
    asked.ended(desk.now())
    return desk.kept(("shown", desk.watch.number, desk.watch.trouble, asked), lambda: _drawn(desk, asked))


def _drawn(desk: Desk, asked: Asked) -> Shown:
    stretch = desk.watch.stretch(asked.seconds, asked.ended(desk.now()))
    if stretch is None:
        nothing = Picture((), ())
        return Shown(asked, "version", "version", nothing, draw(nothing), None, (), desk.watch.trouble)
    places = stretch.now.places
    standard_by = default_by(places)
    by: By = "service" if asked.by == "service" else "version" if asked.by else standard_by
    whole = picture(stretch.before.look, stretch.now.look, stretch.seconds, places, by, stretch.now.missed)
    namespaces = tuple(sorted({node.namespace for node in whole.nodes if node.namespace}))
    chosen = of_namespace(whole, asked.namespace) if asked.namespace in namespaces else whole
    chosen = focused(chosen, asked.focus) if chosen.node(asked.focus) else chosen
    chosen = without_idle(chosen) if asked.busy else chosen
    now = desk.now()
    begins, ends = (now - timedelta(seconds=desk.watch.ago(one)) for one in (stretch.before, stretch.now))
    drawing, link = draw(chosen, _placed(desk, chosen)), whole.link(asked.edge)
    return Shown(asked, by, standard_by, whole, drawing, link, namespaces, desk.watch.trouble, begins, ends, now)


def _placed(desk: Desk, chosen: Picture) -> Layout:
    """Where all stand, for as long as the same are there and call the same."""
    nodes = tuple(node.key for node in chosen.nodes)
    edges = tuple((link.source, link.target) for link in chosen.links)
    return desk.kept(("layout", nodes, edges), lambda: lay_out(nodes, edges))


async def graph(request: Request) -> Response:
    """The page."""
    desk = desk_of(request)
    asked = Asked.of(request.query_params)
    now = await desk.ask(shown, desk, asked)
    parts = Markup(await desk.ask(_parts, desk, asked))  # noqa: S704 - rendered by a template of ours
    return await page(request, "graph.html", shown=now, parts=parts, ranges=tuple(RANGES), standard_range=DEFAULT_RANGE)


async def graph_part(request: Request) -> Response:
    """The picture alone."""
    desk = desk_of(request)
    return HTMLResponse(await desk.ask(_parts, desk, Asked.of(request.query_params)))


async def graph_live(request: Request) -> Response:
    """The picture after each look, from the one after that which is shown already."""
    desk, query = desk_of(request), request.query_params
    seen = int(query.get("look", "")) if _NUMBER.fullmatch(query.get("look", "")) else 0
    events = _after_each_look(desk, Asked.of(query), seen)
    answer: Response = request.app.state.streams.answer(events, request.scope["holds"])
    return answer


async def _after_each_look(desk: Desk, asked: Asked, seen: int = 0) -> AsyncIterator[bytes]:
    while True:
        if desk.watch.number != seen or desk.watch.trouble:
            seen = desk.watch.number
            yield event("graph", await desk.ask(_parts, desk, asked))
        await desk.watch.next()


def _parts(desk: Desk, asked: Asked) -> str:
    """The parts as they are after the last look; many who look at the same are shown the same."""
    if asked.edge:  # whose decisions come at any time
        return _rendered(desk, asked)
    return desk.kept(("parts", desk.watch.number, desk.watch.trouble, asked), lambda: _rendered(desk, asked))


def _rendered(desk: Desk, asked: Asked) -> str:
    look, now = desk.watch.number, shown(desk, asked)
    edge = edge_values(desk, now)
    return part("graph_parts.html", shown=now, edge=edge, links=_table(now), query=asked.query, look=look)


def _table(now: Shown) -> Sequence[Link]:
    """The links as rows, the worst first."""
    order = ("denied", "failing", "busy", "idle")
    drawn = [arrow.link for arrow in now.drawing.arrows]
    return sorted(drawn, key=lambda one: (order.index(one.state), -one.traffic.rate, one.key))


def edge_values(desk: Desk, now: Shown) -> Mapping[str, Any] | None:
    """What stands beside the graph of the link that is chosen."""
    if now.link is None:
        return None
    source, target = now.whole.node(now.link.source), now.whole.node(now.link.target)
    if source is None or target is None:
        return None
    stretch = desk.watch.stretch(now.asked.seconds, now.asked.ended(desk.now()))
    wanted = filter_of(source, target, stretch.now.places if stretch else ())
    proxies = frozenset(target.versions if target.kind != "host" else source.versions)

    def belongs(record: Record) -> bool:
        return record.kind == "decision" and (not record.proxy or record.proxy in proxies) and holds(wanted, record)

    records = _then(desk, now, wanted, belongs) if now.asked.until else _lately(desk, now.link, belongs)
    query = {"principal": _name(wanted.principal), "resource": _name(wanted.resource)}
    if now.asked.until:
        query |= {"since": now.earlier, "until": f"{now.ends:%Y-%m-%dT%H:%M:%SZ}"}
    policies = sorted({reason for record in records for reason in record.reasons})
    return {"link": now.link, "source": source, "target": target, "records": records[: LATEST + 4], "query": query,
            "policies": policies}  # fmt: skip


def _lately(desk: Desk, link: Link, belongs: Callable[[Record], bool]) -> list[Record]:
    """The last ones; what is looked for must not be below what passes."""
    records = desk.source.recent(belongs, LATEST, WITHIN)
    if link.state != "denied" or (len(records) == LATEST and all(record.decision != "allow" for record in records)):
        return records
    more = desk.source.recent(lambda one: one.decision != "allow" and belongs(one), 4, WITHIN)
    ids = {record.decision_id for record in records}
    return [*(one for one in more if one.decision_id not in ids), *records]


def _then(desk: Desk, now: Shown, wanted: Filter, belongs: Callable[[Record], bool]) -> list[Record]:
    """Those of a range that ended, denials first."""
    within = replace(wanted, span=Span(now.begins, now.ends))
    found = [one for one in desk.source.search(within, LATEST * 8) if belongs(one)]
    return sorted(found, key=lambda one: one.decision == "allow")[:LATEST]


def filter_of(source: Node, target: Node, places: Sequence[pb.InstancePlace]) -> Filter:
    """The records of an edge: those of its caller on what it called."""
    known = {place.name: place for place in places}
    caller = next((known[name].spiffe_id for name in source.versions if name in known), None)
    service = next((known[name].service for name in target.versions if name in known), None)
    if source.key == OUTSIDE:
        principal: str | None = ANONYMOUS
    else:
        principal = f'Workload::"{caller}"' if caller else None
    resource = f'Service::"{service}"' if service else f'Host::"{target.name}"' if target.kind == "host" else None
    return replace(Filter(kind="decision"), principal=principal, resource=resource)


def _name(uid: str | None) -> str | None:
    return entity_id(uid) if uid else None
