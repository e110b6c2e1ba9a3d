"""What is drawn: a Picture and its Layout as shapes, each with its words, ready for a template.

Law: pure. Colour is never the only sign: what is denied is red, dashed otherwise, and says so in words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, takewhile
from math import log10
from typing import Final

from policyd.console.graph.layout import FEW, Layout, Point, lay_out
from policyd.console.graph.picture import Link, Node, Picture

NEAR: Final = 0.6  # along an edge, where words stand: nearer to the end at which fewer others are
MAX_NAME: Final = 15.5  # that fit into a node, in letters of middle width
MAX_NOTE: Final = 18.5  # of its second line
WIDE: Final = frozenset("mwMW@%—")
NARROW: Final = frozenset("ijlftrI.,:;|!'()[]-/ ")
FEW_LINKS: Final = 12  # of which those that rest are labelled too
NOTHING: Final = "–"
_RANK: Final = ("idle", "busy", "failing", "denied")


@dataclass(frozen=True, slots=True)
class Box:
    """A node: `left` and `top` are its corner, `note` is its second line, `title` all that there is to say."""

    node: Node
    left: float
    top: float
    width: float
    height: float
    name: str
    note: str
    title: str
    state: str


@dataclass(frozen=True, slots=True)
class Arrow:
    """A link: its curve, its width, and where its words stand."""

    link: Link
    path: str
    stroke: float
    x: float
    y: float
    words: str
    more: str
    title: str
    is_labelled: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """All shapes; `is_small` where there are many."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    width: float
    height: float
    is_small: bool


def draw(picture: Picture, layout: Layout | None = None) -> Drawing:
    """Draw a picture."""
    layout = layout or layout_of(picture)
    small = len(picture.nodes) > FEW
    worst = _worst(picture.links)
    boxes = tuple(_box(node, layout, worst.get(node.key, "idle"), small) for node in picture.nodes)
    behind_first = sorted(picture.links, key=lambda link: _RANK.index(link.state))  # what is denied is on top
    leaving, arriving = Counter(one.source for one in picture.links), Counter(one.target for one in picture.links)
    arrows = tuple(
        _arrow(link, picture, layout, small, NEAR if leaving[link.source] >= arriving[link.target] else 1 - NEAR)
        for link in behind_first
    )
    return Drawing(boxes, arrows, layout.width, layout.height, small)


def layout_of(picture: Picture) -> Layout:
    """The layout of a picture, which depends on nothing but who is there and who calls whom."""
    return lay_out([node.key for node in picture.nodes], [(link.source, link.target) for link in picture.links])


def rate(value: float) -> str:
    """Events a second, as short as it stays true."""
    if not value:
        return NOTHING
    if value < 0.1:
        return f"{value * 60:.2g}/min"
    return f"{value:.1f}/s" if value < 100 else f"{value:,.0f}/s"


def milliseconds(value: float | None) -> str:
    """A duration."""
    if value is None:
        return NOTHING
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"


def share(part: float, whole: float) -> str:
    """How many of a hundred."""
    return f"{100 * part / whole:.3g} %" if whole else NOTHING


def _worst(links: Sequence[Link]) -> Mapping[str, str]:
    """The worst state of what arrives at each node."""
    found: dict[str, str] = {}
    for link in links:
        for key, state in ((link.target, link.state), (link.source, "busy" if link.is_busy else "idle")):
            found[key] = max(found.get(key, "idle"), state, key=_RANK.index)
    return found


def _box(node: Node, layout: Layout, state: str, small: bool) -> Box:
    x, y = layout.at[node.key]
    scale = layout.scale
    count = len(node.versions)
    kind = {"gateway": "gateway", "outside": "callers outside", "host": "outside the mesh"}.get(node.kind, "")
    note = " · ".join(filter(None, (node.version, kind, f"{count} instances" if count > 1 else "")))
    where = f"{node.name}.{node.namespace}" if node.namespace else node.name
    title = "; ".join(
        filter(None, (f"{where} {node.version}".strip(), kind, ", ".join(node.versions[:20]), node.health))
    )
    left, top = x - scale.width / 2, y - scale.height / 2
    name, note = _short(node.name, MAX_NAME), "" if small else _short(note, MAX_NOTE)
    return Box(node, left, top, scale.width, scale.height, name, note, title, state)


def _short(text: str, most: float) -> str:
    """Of what is too wide both ends, for names that begin alike often end differently."""
    if _width(text) <= most:
        return text
    head, tail = _fitting(text, most * 0.62), _fitting(text[::-1], most * 0.3)[::-1]
    return f"{head}…{tail}"


def _fitting(text: str, most: float) -> str:
    """The beginning that is so wide at most."""
    widths = accumulate(_width(char) for char in text)
    return text[: sum(1 for width in takewhile(lambda width: width <= most, widths))]


def _width(text: str) -> float:
    """About how wide a text is, in letters of middle width; what is not ASCII may be as wide as an ideogram."""
    return sum(1.85 if one in WIDE else 0.62 if one in NARROW else 1.0 if one.isascii() else 1.85 for one in text)


def _arrow(link: Link, picture: Picture, layout: Layout, small: bool, along: float) -> Arrow:
    path, middle = _curve(link, layout, along)
    words, more = _words(link)
    labelled = not small and (link.is_busy or len(picture.links) <= FEW_LINKS)
    stroke = (1.4 + min(log10(1 + link.traffic.rate) * 1.5, 4.6)) * (0.6 if small else 1.0)
    return Arrow(link, path, round(stroke, 2), *middle, words, more, _title(link), labelled)


def _curve(link: Link, layout: Layout, along: float) -> tuple[str, Point]:
    """The way of a link from the right of a node to the left of another, and where its words stand: so far along it
    that those of a fan stand apart.
    """
    scale = layout.scale
    (x0, y0), (x1, y1) = layout.at[link.source], layout.at[link.target]
    start, end = (x0 + scale.width / 2, y0), (x1 - scale.width / 2 - 7, y1)
    if x1 < x0 + scale.width:  # to the left, or within a column: around
        over = min(y0, y1) - scale.row * 0.62
        middle = ((start[0] + end[0]) / 2, over)
        return f"M{_at(start)}{_bend(start, middle, 60)}{_bend(middle, end, 60)}", middle
    stops = [start, *layout.ways.get((link.source, link.target), ()), end]
    path = "".join(_bend(a, b) for a, b in pairwise(stops))
    return f"M{_at(start)}{path}", _on_bend(stops[0], stops[1], along)


def _bend(a: Point, b: Point, least: float = 30.0) -> str:
    """A curve that leaves and arrives level."""
    by = max(least, (b[0] - a[0]) / 2)
    return f"C{_at((a[0] + by, a[1]))} {_at((b[0] - by, b[1]))} {_at(b)}"


def _on_bend(a: Point, b: Point, along: float) -> Point:
    """A point of the curve, 0 at its beginning and 1 at its end."""
    back = 1 - along
    level = (1.5 * back * back * along) + (1.5 * back * along * along) + along**3
    steep = along * along * (3 - 2 * along)
    return a[0] + (b[0] - a[0]) * level, a[1] + (b[1] - a[1]) * steep


def _at(point: Point) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"


def _words(link: Link) -> tuple[str, str]:
    """What stands at an edge: how much; and below, what is wrong with it or how fast it is."""
    one = link.traffic
    if not link.is_busy:
        return "idle", ""
    if not one.rate:
        return f"{rate(one.connections)} opened", ""
    if one.denied:
        return rate(one.rate), f"{share(one.denied, one.rate)} denied"
    if one.failed:
        return rate(one.rate), f"{share(one.failed, one.rate)} failed"
    return rate(one.rate), f"p95 {milliseconds(one.p95)}"


def _title(link: Link) -> str:
    one = link.traffic
    security = {"mutual_tls": "mutual TLS", "none": "in the clear"}.get(one.edge.security, "security unknown")
    said = [f"{link.source} to {link.target}", security]
    if one.rate:
        said += [f"{rate(one.rate)} requests", f"p50 {milliseconds(one.p50)}", f"p95 {milliseconds(one.p95)}"]
    if one.connections:
        said.append(f"{rate(one.connections)} connections opened")
    if one.denied:
        said.append(f"{share(one.denied, one.rate)} denied")
    if one.failed:
        said.append(f"{share(one.failed, one.rate)} failed")
    return ", ".join(said if link.is_busy else [*said, "idle"])
