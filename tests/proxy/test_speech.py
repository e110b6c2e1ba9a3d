"""How much an agent says of itself."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest

from policyd.names import AGENT_LEVELS
from proxy.speech import Speech, Wanted, level_of, wanted

SAID = {"agent.shows": "debug", "agent.connected": "info", "sidecar.crashed": "warning"}


@pytest.mark.parametrize("level", AGENT_LEVELS)
def test_what_is_grave_enough_is_said_with_its_level(level: str) -> None:
    stream = io.StringIO()
    speech = Speech(stream, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    speech.level = level
    for event in SAID:
        speech.say(event, instance="web-1")

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    wanted_events = {event: one for event, one in SAID.items() if AGENT_LEVELS.index(one) >= AGENT_LEVELS.index(level)}
    assert {line["event"]: line["level"] for line in lines} == wanted_events
    assert {line["instance"] for line in lines} <= {"web-1"}


def test_an_event_that_nobody_has_weighed_is_said_as_usual() -> None:
    assert level_of("agent.sneezed") == "info"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (("debug", "trace"), Wanted("debug", "trace")),
        (("", ""), Wanted()),
        (("trace", "loud"), Wanted()),
        (("error", "off"), Wanted("error", "off")),
    ],
)
def test_a_level_that_is_none_is_the_usual_one(asked: tuple[str, str], found: Wanted) -> None:
    assert wanted(*asked) == found
