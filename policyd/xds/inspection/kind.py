"""What an Envoy holds, by kinds."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What an Envoy holds."""

    LISTENERS = "listeners"
    ROUTES = "routes"
    CLUSTERS = "clusters"
    ENDPOINTS = "endpoints"
    SECRETS = "secrets"
