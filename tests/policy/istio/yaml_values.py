"""YAML as plain values, by the library and not by our reader, for the oracle."""

from __future__ import annotations

from typing import Any

import yaml


def values_of(text: str) -> list[dict[str, Any]]:
    """Every document."""
    return [one for one in yaml.safe_load_all(text) if one is not None]
