"""What a terminal shows of the calls between two looks: as many as fit, a line each, what is wrong first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from policyd.wording import clean

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from policyd.telemetry.graph import Traffic

TLS: Final = {"mutual_tls": "mutual", "none": "none"}
NAMES: Final = ("FROM", "TO")
FIGURES: Final = ("REQUESTS/S", "DENIED/S", "FAILED/S", "OPENED/S", "P50", "P95", "TLS")
HEADERS: Final = (*NAMES, *FIGURES)
LESS: Final = frozenset({"OPENED/S", "P50", "TLS"})  # what a narrow terminal leaves out, for names to be read
NARROW: Final = 96  # columns
AROUND: Final = 3  # lines that are no rows
MISSED: Final = 3  # of the proxies that were not seen, how many are named


@dataclass(frozen=True, slots=True)
class Screen:
    """One look: the calls of `edges` in so many `seconds`, and who was not seen."""

    folder: str
    seconds: float
    edges: Sequence[Traffic]
    missed: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Fill what there is of a terminal, no more."""
        missed = self.missed[:MISSED]
        room = max((options.height or console.height) - AROUND - len(missed), 1)
        yield _line(self._head(), "bold")
        if not self.edges:
            yield _line("no request ended meanwhile")
        else:
            yield _table(self.edges[:room], is_narrow=options.max_width < NARROW)
        if len(self.edges) > room:
            yield _line(f"and {len(self.edges) - room} more", "dim")
        for one in missed:
            yield _line(f"not seen: {one}", "yellow")

    def _head(self) -> str:
        sums = [sum(getattr(one, name) for one in self.edges) for name in ("rate", "denied", "failed")]
        said = " · ".join(
            f"{value:.1f} {word}/s" for value, word in zip(sums, ("calls", "denied", "failed"), strict=True)
        )
        return f"{self.folder} · {said} · of the last {self.seconds:.0f} s · Ctrl-C ends"


def worst_first(edges: Sequence[Traffic]) -> list[Traffic]:
    """Those with denials, then those with failures, then the others; each as they were."""
    return sorted(edges, key=lambda one: (not one.denied, not one.failed))


def cells(one: Traffic) -> Sequence[str]:
    """A row under HEADERS."""
    return (
        one.edge.source, one.edge.destination, _rate(one.rate), _rate(one.denied), _rate(one.failed),
        _rate(one.connections), _milliseconds(one.p50), _milliseconds(one.p95), TLS.get(one.edge.security, "-"),
    )  # fmt: skip


def _table(edges: Sequence[Traffic], *, is_narrow: bool) -> Table:
    shown = [at for at, name in enumerate(HEADERS) if not (is_narrow and name in LESS)]
    made = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for at in shown:
        is_name = HEADERS[at] in NAMES
        made.add_column(HEADERS[at], no_wrap=not is_name, justify="left" if is_name else "right")
    for one in edges:
        row, style = cells(one), _style(one)
        made.add_row(*(_line(row[at], style.get(HEADERS[at], "")) for at in shown))
    return made


def _style(one: Traffic) -> dict[str, str]:
    """Colour beside the figure that says it."""
    found = {"DENIED/S": "bold red" if one.denied else "", "FAILED/S": "bold yellow" if one.failed else ""}
    return found | {"TLS": "yellow" if one.edge.security == "none" else ""}


def _line(text: str, style: str = "") -> Text:
    """One line, however long the text."""
    return Text(clean(text), style=style, no_wrap=True, overflow="ellipsis")


def _rate(value: float) -> str:
    return f"{value:.1f}" if value else "-"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
