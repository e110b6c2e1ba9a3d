"""Several Envoys' metrics as one page: a family stands once, the mesh's under standard names, each line with its proxy.

Law: pure. Text in Prometheus' format (0.0.4) goes in and comes out; a line that is none is left out, and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isnan, nan

from policyd import names, signals

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([^ ]+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')
_TYPE = re.compile(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) ([a-z]+)")
_STANDARD = f"envoy_{names.MESH_PREFIX}_"
_MESSAGES = re.compile(r"envoy_cluster_(?:(.*)_)?grpc_(request|response)_message_count")
_COUNTS = {"request": names.MESH_REQUEST_MESSAGES, "response": names.MESH_RESPONSE_MESSAGES}
_NO_LETTER = re.compile(r"[^a-zA-Z0-9_]")
_SAMPLE = re.compile(
    r"([a-zA-Z_:][a-zA-Z0-9_:]*)"
    r'(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*",?)*)\})?'
    r"[ \t]+([^ \t]+)(?:[ \t]+-?[0-9]+)?[ \t]*"
)
_OTHERS = (f"{names.MESH_PREFIX}_", "envoy_", "policyd_")  # what no application counts
_PARTS = ("", "_bucket", "_sum", "_count", "_total", "_created")
_THEIRS = "exported_proxy"  # what an application itself calls `proxy`, as Prometheus would say
MAX_LINES = 20_000  # of one application
_TELLS = re.compile(rf'(?:^|,)(?:{signals.ASKED}|{signals.ASKS}|{signals.LOCAL})="')
_WITHOUT = f'{signals.WITHOUT}="'
_BOUND = re.compile(r',?le="([^"]*)"$')
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
_ESCAPED = re.compile(r'\\[\\"n]')
KEPT_LABELS = 4096


@dataclass(slots=True)
class Family:
    """All lines of one metric; `lines` are without the line's end. `merges`: some lack labels that told them apart."""

    kind: str
    lines: list[str] = field(default_factory=list)
    merges: bool = False


class Page:
    """What has been collected of one page of metrics."""

    def __init__(self) -> None:
        self.families: dict[str, Family] = {}
        self.odd = 0  # lines that were none
        self._labels: dict[str, str] = {}

    def add(self, proxy: str, text: str) -> int:
        """Take the page of one Envoy, and return how many series of the mesh's metrics it has."""
        family: Family | None = None
        series = 0
        mine = f'proxy="{escaped(proxy)}"'
        messages = _Messages()
        for line in text.split("\n"):
            if match := _TYPE.fullmatch(line):
                family = self.families.setdefault(_renamed(match[1]), Family(match[2]))
            elif line and not line.startswith("#"):
                if (match := _LINE.fullmatch(line)) is None or family is None:
                    self.odd += 1
                    continue
                if messages.take(match[1], match[2] or "", match[3]):
                    continue
                family.merges |= _WITHOUT in (match[2] or "")
                messages.look(match[2] or "")
                family.lines.append(self._line(match[1], match[2] or "", match[3], mine))
                series += match[1].startswith(_STANDARD) and "_bucket" not in match[1]
        for name, labels, value in messages.lines():
            self.families.setdefault(name, Family("counter")).lines.append(f"{name}{{{labels},{mine}}} {value}")
        return series

    def add_application(self, proxy: str, text: str) -> None:
        """Take the page of the application beside a sidecar, as far as it is one, and none of others' metrics."""
        family: Family | None = None
        called = ""
        for at, line in enumerate(text.split("\n")):
            if match := _TYPE.fullmatch(line.rstrip("\r")):
                called = match[1]
                family = None if called.startswith(_OTHERS) else self.families.setdefault(called, Family(match[2]))
            elif line.strip() and not line.startswith("#"):
                made = _of_application(line.rstrip("\r"), proxy) if at < MAX_LINES else None
                if made is None:
                    self.odd += 1
                    continue
                name, written_line = made
                of_it = family is not None and name.removeprefix(called) in _PARTS and name.startswith(called)
                kept = family if of_it and family is not None else self.families.setdefault(name, Family("untyped"))
                kept.lines.append(written_line)

    def put(self, name: str, values: Iterable[tuple[Mapping[str, str], float]]) -> None:
        """Take a family of our own, one of names.METRICS."""
        family = self.families.setdefault(name, Family(names.METRICS[name].kind))
        for labels, value in values:
            family.lines.append(f"{name}{{{written(labels)}}} {value:.16g}" if labels else f"{name} {value:.16g}")

    def text(self) -> str:
        """The page."""
        return "".join(self._parts())

    def _parts(self) -> Iterator[str]:
        for name, family in self.families.items():
            if family.lines:
                yield f"# TYPE {name} {family.kind}\n"
                yield "\n".join(_summed(family.lines) if family.merges else family.lines)
                yield "\n"

    def _line(self, name: str, labels: str, value: str, mine: str) -> str:
        if not name.startswith(_STANDARD):
            return f"{name}{{{labels},{mine}}} {value}" if labels else f"{name}{{{mine}}} {value}"
        bound = _BOUND.search(labels)
        tags = labels[: bound.start()] if bound else labels
        known = self._labels.get(tags)
        if known is None:
            if len(self._labels) >= KEPT_LABELS:
                self._labels.clear()
            known = self._labels[tags] = written(signals.standard_labels(signals.unfolded(read(tags))))
        end = f',le="{bound[1]}"' if bound else ""
        return f"{_renamed(name)}{{{known},{mine}{end}}} {value}"


def _of_application(line: str, proxy: str) -> tuple[str, str] | None:
    """The metric of a line, and the line with its proxy, without a time; None for what is none, or another's."""
    found = _SAMPLE.fullmatch(line)
    if found is None or found[1].startswith(_OTHERS) or isnan(_number(found[3])) is not (found[3] == "NaN"):
        return None
    labels = read(found[2] or "")
    if signals.PROXY in labels:
        labels = {_THEIRS if name == signals.PROXY else name: value for name, value in labels.items()}
    return found[1], f"{found[1]}{{{written({**labels, signals.PROXY: proxy})}}} {found[3]}"


class _Messages:
    """What one Envoy says of messages of gRPC, by the cluster alone: its name up to the first dot is a label, the rest
    is in the metric's name. Who it stands beside, and which clusters there are, other lines of its page tell.
    """

    def __init__(self) -> None:
        self._told: list[tuple[str, str, str, str]] = []
        self._local = ""
        self._clusters: dict[tuple[str, str], str] = {}
        self._of_mesh: set[str] = set()
        self._seen: set[str] = set()

    def take(self, name: str, labels: str, value: str) -> bool:
        """Keep a line that tells of messages; False for any other."""
        if (found := _MESSAGES.fullmatch(name)) is None:
            return False
        cluster = read(labels).get("envoy_cluster_name", "")
        self._told.append((found[2], cluster, found[1] or "", value))
        return True

    def look(self, labels: str) -> None:
        """Take note of a line of the mesh's metrics, once of those that are alike."""
        tags = labels.rpartition(',le="')[0] or labels
        if tags in self._seen or not _TELLS.search(tags):
            return
        self._seen.add(tags)
        found = signals.unfolded(read(tags))
        self._local = found.get(signals.LOCAL, self._local)
        if cluster := found.get(signals.CLUSTER):
            first, _, rest = cluster.partition(".")
            self._clusters[first, _NO_LETTER.sub("_", rest)] = cluster
            self._of_mesh |= {cluster} if found.get(signals.REMOTE) else set()

    def lines(self) -> Iterator[tuple[str, str, str]]:
        """The metric, its labels and its value of each line."""
        for which, first, rest, value in self._told if self._local else ():
            if first.startswith("inbound|"):
                made = signals.message_labels(self._local)
            elif (cluster := self._clusters.get((first, rest))) is not None:
                made = signals.message_labels(self._local, cluster, is_service=cluster in self._of_mesh)
            else:
                continue
            yield f"{names.MESH_PREFIX}_{_COUNTS[which]}", written(made), value


def _summed(lines: Iterable[str]) -> list[str]:
    """What is told apart no more, as one line."""
    sums: dict[str, float] = {}
    for line in lines:
        series, _, value = line.rpartition(" ")
        sums[series] = sums.get(series, 0.0) + _number(value)
    return [f"{series} {value:.16g}" for series, value in sums.items()]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return nan


def read(labels: str) -> dict[str, str]:
    """The labels between the braces of a line, unescaped."""
    return {name: _ESCAPED.sub(lambda found: _ESCAPES[found[0]], value) for name, value in _LABEL.findall(labels)}


def written(labels: Mapping[str, str]) -> str:
    """As `read` takes them."""
    return ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items())


def escaped(value: str) -> str:
    """A label's value as it stands between quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _renamed(name: str) -> str:
    return name.removeprefix("envoy_") if name.startswith(_STANDARD) else name
