"""Bookinfo in force, as every test of a request needs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.authz.ruling import Ruling
from policyd.cedar.schema import Schema, parse_schema
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.placement import assumed
from policyd.sources.files import Folder, read_folder
from tests.authz.checks import ruling_of


@pytest.fixture(scope="session")
def folder(root: Path) -> Folder:
    """The sample's files."""
    return read_folder(root / "examples/bookinfo")


@pytest.fixture(scope="session")
def schema(root: Path) -> Schema:
    """The traffic schema."""
    return parse_schema((root / "policies/mesh.cedarschema").read_text())


@pytest.fixture(scope="session")
def mesh(folder: Folder) -> Mesh:
    """The sample's Mesh."""
    declaration = declare(folder.texts)
    return build(declaration, "cluster.local", assumed(declaration))


@pytest.fixture(scope="session")
def ruling(folder: Folder, mesh: Mesh, schema: Schema) -> Ruling:
    """The sample's policies over it."""
    return ruling_of(mesh, schema, folder.below("policies"))
