"""Markdown that every page is made of: tables, and docstrings as prose."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Give a table's lines and an empty one; nothing at all where there is no row."""
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    if lines:
        yield from (f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines, "")


def _cell(text: str) -> str:
    """One line, in which nothing outside inline code is a column's end or HTML."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    return "`".join(part if at % 2 else part.replace("<", "&lt;") for at, part in enumerate(parts))


def prose(docstring: str | None) -> str:
    """Give a docstring without its indentation."""
    return inspect.cleandoc(docstring or "")


def code(text: object) -> str:
    """Give inline code; nothing for empty text."""
    return f"`{text}`" if str(text) else ""


def codes(names: Iterable[str], otherwise: str = "") -> str:
    """Give names as inline code, with commas between."""
    return ", ".join(code(name) for name in names) or otherwise
