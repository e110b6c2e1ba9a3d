"""Istio's and the core's kinds as strict models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gateway:
    """Placeholder until the models land."""


@dataclass(frozen=True, slots=True)
class VirtualService:
    """Placeholder until the models land."""
