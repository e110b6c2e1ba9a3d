"""What tests of the authority share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from policyd.ca.database import Database, open_database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "tokens.db")
    yield opened
    opened.close()
