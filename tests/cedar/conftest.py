"""What the tests of the language share."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.cedar.policies import PolicySet, load_policies
from policyd.cedar.schema import Schema, parse_schema


@pytest.fixture(scope="session")
def schema(root: Path) -> Schema:
    """The traffic schema."""
    return parse_schema((root / "policies/mesh.cedarschema").read_text())


@pytest.fixture(scope="session")
def bookinfo(root: Path, schema: Schema) -> PolicySet:
    """Bookinfo's policies."""
    folder = root / "examples/bookinfo/policies"
    return load_policies({path.name: path.read_text() for path in folder.glob("*.cedar")}, schema)
