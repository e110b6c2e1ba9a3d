"""Several Envoys' metrics as one page: a family stands once, the mesh's under standard names, each line with its proxy.

Law: pure. Text in Prometheus' format (0.0.4) goes in and comes out; a line that is none is left out, and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import nan

from policyd import names, signals

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([^ ]+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')
_TYPE = re.compile(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) ([a-z]+)")
_STANDARD = f"envoy_{signals.PREFIX}_"
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
        for line in text.split("\n"):
            if match := _TYPE.fullmatch(line):
                family = self.families.setdefault(_renamed(match[1]), Family(match[2]))
            elif line and not line.startswith("#"):
                if (match := _LINE.fullmatch(line)) is None or family is None:
                    self.odd += 1
                    continue
                family.merges |= _WITHOUT in (match[2] or "")
                family.lines.append(self._line(match[1], match[2] or "", match[3], mine))
                series += match[1].startswith(_STANDARD) and "_bucket" not in match[1]
        return series

    def put(self, name: str, values: Iterable[tuple[Mapping[str, str], float]]) -> None:
        """Take a family of our own, one of names.AGENT_METRICS."""
        family = self.families.setdefault(name, Family(names.AGENT_METRICS[name][0]))
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
            known = self._labels[tags] = written(signals.standard_labels(read(tags)))
        end = f',le="{bound[1]}"' if bound else ""
        return f"{_renamed(name)}{{{known},{mine}{end}}} {value}"


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
