"""What the tests of deciding in the proxy share."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.cedar.schema import Schema, parse_schema


@pytest.fixture(scope="session")
def schema(root: Path) -> Schema:
    """The traffic schema."""
    return parse_schema((root / "policies/mesh.cedarschema").read_text())
