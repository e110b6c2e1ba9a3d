"""What proxies are told of the control plane, from the settings and from where it listens."""

from __future__ import annotations

import json
from collections.abc import Sequence

from policyd import access_log
from policyd.config import Address, Settings
from policyd.spiffe import SpiffeId
from policyd.xds.resources.model import AccessLog, Control, Tracing


def control_of(settings: Settings, decide: Sequence[Address]) -> Control:
    """Where decisions are asked for (`decide`), and where lines and spans of requests go."""
    ports = tuple(address.port for address in decide)
    spans = settings.tracing
    return Control(
        decide[0].host,
        ports,
        SpiffeId.server(settings.trust_domain),
        tracing=Tracing(spans.endpoint or "", spans.sampling) if spans.endpoint or spans.window else None,
        access_log=_access_log(settings),
    )


def _access_log(settings: Settings) -> AccessLog | None:
    path, form = settings.access_log_file, settings.access_log_format
    if path is None:
        return None
    if settings.access_log_encoding == "JSON":
        return AccessLog(path, json.loads(form) if form else access_log.JSON)
    return AccessLog(path, form or access_log.TEXT)
