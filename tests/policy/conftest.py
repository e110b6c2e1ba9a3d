"""Bookinfo in force, as the author's tools see it."""

from __future__ import annotations

from tests.authz.conftest import folder, mesh, ruling, schema

__all__ = ["folder", "mesh", "ruling", "schema"]
