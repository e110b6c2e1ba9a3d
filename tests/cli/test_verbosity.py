"""`policyd verbosity`: what it asks of the server, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from policyd._pb import admin_pb2 as pb
from tests.cli.conftest import Said
from tests.fakes.admin import FakeAdmin


@pytest.mark.parametrize(("word", "asked"), [("debug", "debug"), ("settings", ""), ("loud", "loud")])
def test_a_level_is_asked_for(
    policyd: Callable[..., Said], folder: Path, fake: FakeAdmin, word: str, asked: str
) -> None:
    said = policyd("verbosity", word, "--dir", folder, "--json")

    assert fake.requests == [("SetLogLevel", pb.SetLogLevelRequest(level=asked))]
    assert said.value == {"level": "debug"}
