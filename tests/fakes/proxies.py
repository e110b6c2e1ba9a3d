"""What proxies count, as their metrics pages tell it."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from policyd._pb import admin_pb2 as pb


@dataclass(frozen=True, slots=True)
class Calls:
    """An edge as the asked proxy counts it: how many were allowed, denied, and answered with 503."""

    source: str
    target: str
    allowed: int = 0
    denied: int = 0
    failed: int = 0
    security: str = "mutual_tls"
    milliseconds: float = 4.0


def page(calls: Iterable[Calls]) -> str:
    """The page of the proxy that was asked all that."""
    lines: list[str] = []
    for one in calls:
        labels = {
            "reporter": "destination",
            "source_workload": one.source,
            "destination_workload": one.target,
            "connection_security_policy": one.security,
        }
        for count, code, decision in (
            (one.allowed, "200", "allow"),
            (one.denied, "403", "deny"),
            (one.failed, "503", "allow"),
        ):
            text = _labels({**labels, "response_code": code, "decision": decision})
            lines.append(f"istio_requests_total{text} {count}")
        total = one.allowed + one.denied + one.failed
        for bound in (1.0, 5.0, 25.0, 100.0):
            text = _labels({**labels, "le": str(bound)})
            below = total if one.milliseconds <= bound else 0
            lines.append(f"istio_request_duration_milliseconds_bucket{text} {below}")
        lines.append(f"istio_request_duration_milliseconds_bucket{_labels({**labels, 'le': '+Inf'})} {total}")
    return "\n".join([*lines, ""])


def counting(
    calls: Callable[[], Iterable[Calls]], looks: Counter[str] | None = None
) -> Callable[[Any], pb.InspectReply]:
    """The reply to Inspect of proxies that count what `calls` says each time."""

    def reply(request: Any) -> pb.InspectReply:
        if looks is not None:
            looks[request.instance] += 1
        own = [one for one in calls() if one.target == request.instance]
        return pb.InspectReply(held=zlib.compress(page(own).encode()))

    return reply


def _labels(labels: Mapping[str, str]) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}"
