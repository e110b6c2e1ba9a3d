"""Every line that our processes log is an event with a name of its own and facts beside it, none of them a secret."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from policyd.telemetry.logs import is_secret_name

ROOT = Path(__file__).parents[1]
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
EVENT = re.compile(r"[a-z_{}]+\.[a-z_{}]+")  # `<what>.<happened>`; braces stand for one of a few words
SAYS = ("say", "_say")  # of agents


class Line(NamedTuple):
    """A call that logs: where, the event, the names of its facts."""

    place: str
    event: str | None
    facts: tuple[str, ...]


def lines() -> Iterator[Line]:
    for folder in ("policyd", "proxy"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and _logs(node, folder):
                    facts = tuple(one.arg for one in node.keywords if one.arg)
                    yield Line(f"{file.relative_to(ROOT)}:{node.lineno}", _event(node), facts)


def _logs(call: ast.Call, folder: str) -> bool:
    called = call.func
    if not isinstance(called, ast.Attribute):
        return False
    if isinstance(called.value, ast.Name) and called.value.id in ("_log", "log", "logger"):
        return called.attr in LEVELS
    return folder == "proxy" and called.attr in SAYS


def _event(call: ast.Call) -> str | None:
    """The event, where it is written there; None where a variable has it."""
    match call.args[0]:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(one.value if isinstance(one, ast.Constant) else "{}" for one in parts)
    return None


FOUND = list(lines())


def test_lines_are_found_in_every_part_that_speaks() -> None:
    rooms = {line.place.partition(":")[0].split("/")[1] for line in FOUND}

    assert {"server", "ca", "audit", "agent.py", "session.py", "envoy.py"} <= rooms
    assert len(FOUND) > 80


@pytest.mark.parametrize("line", FOUND, ids=lambda line: line.place)
def test_a_line_is_an_event_with_facts_that_are_no_secrets(line: Line) -> None:
    assert line.event is None or EVENT.fullmatch(line.event)
    assert [fact for fact in line.facts if is_secret_name(fact)] == []
