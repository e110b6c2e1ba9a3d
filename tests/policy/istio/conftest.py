"""The small mesh and the schema."""

from __future__ import annotations

import pytest

from policyd.mesh.model import Mesh
from tests.authz.conftest import schema
from tests.policy.istio.world import mesh_of

__all__ = ["schema"]


@pytest.fixture(scope="session")
def mesh() -> Mesh:
    """Three namespaces, two versions of one service, and a gateway."""
    return mesh_of()
