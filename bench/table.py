"""Rows of figures, printed as a table and written as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `bar` is the promise ("" where there is none), `holds` whether it is kept."""

    name: str
    value: float
    unit: str
    bar: str = ""
    holds: bool | None = None


def row(name: str, value: float, unit: str, *, at_most: float | None = None, at_least: float | None = None) -> Row:
    """A figure with its bar."""
    if at_most is not None:
        return Row(name, value, unit, f"<= {at_most:g}", value <= at_most)
    if at_least is not None:
        return Row(name, value, unit, f">= {at_least:g}", value >= at_least)
    return Row(name, value, unit)


def report(benchmark: str, rows: Sequence[Row]) -> bool:
    """Print and write the rows; returns whether every bar holds."""
    table = Table(title=f"bench {benchmark}", title_justify="left")
    for column in ("figure", "value", "unit", "bar", "holds"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for item in rows:
        holds = "" if item.holds is None else "yes" if item.holds else "NO"
        table.add_row(item.name, f"{item.value:,.3f}".rstrip("0").rstrip("."), item.unit, item.bar, holds)
    Console(width=110).print(table)
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps([asdict(item) for item in rows], indent=2)
    (RESULTS / f"{benchmark}.json").write_text(text + "\n", encoding="utf-8")
    return all(item.holds is not False for item in rows)
