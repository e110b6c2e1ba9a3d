"""What the tests of the server share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.served import WORKLOADS


@pytest.fixture
def short() -> Iterator[Path]:
    """A runtime folder of few letters: socket paths end at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield Path(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that declares two workloads that someone else starts."""
    (tmp_path / "workloads.yaml").write_text(WORKLOADS)
    return tmp_path
