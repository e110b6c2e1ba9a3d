"""Sets of policies of every size and the requests that they are asked, for the benchmark of the engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from bench.processes import ROOT
from policyd.cedar.engine import Engine
from policyd.cedar.model import Entity, Request, Uid
from policyd.cedar.policies import PolicySet, load_policies
from policyd.cedar.schema import Schema, parse_schema

ACCOUNT: Final = "spiffe://cluster.local/ns/shop/sa/"
READS: Final = 'when { context.request.path like "/api/*" && context.request.method == "GET" }'
CALLERS: Final = 6  # policies of a service that name one caller
LABELS: Final = Entity(Uid("Labels", "v1"), tags={"app": "s", "version": "v1"})


class Loaded(NamedTuple):
    """A set in force, and how long it took."""

    policy_set: PolicySet
    engine: Engine
    load_seconds: float
    build_seconds: float


def traffic_schema() -> Schema:
    """The schema of traffic policies."""
    return parse_schema((ROOT / "policies/mesh.cedarschema").read_text(encoding="utf-8"))


def _policies(service: int) -> Iterator[str]:
    """Ten policies of one service: six callers, a group, a namespace, any workload, and no stranger."""
    to, action = f'resource == Service::"s{service}.shop"', 'action in Action::"read"'
    for caller in range(CALLERS):
        yield f'permit (principal == Workload::"{ACCOUNT}a{service}-{caller}", {action}, {to}) {READS};'
    yield f'permit (principal in Group::"g{service % 50}", {action}, {to}) {READS};'
    yield f'permit (principal in Namespace::"shop", {action}, {to}) {READS};'
    yield f'permit (principal is Workload, action == Action::"GET", {to}) {READS};'
    yield f"forbid (principal is Unauthenticated, {action}, {to}) {READS};"


def policies_in_files(size: int) -> dict[str, str]:
    """A file a service, as authors write them."""
    return {
        f"s{service}.cedar": "\n".join(f'@id("s{service}-{at}")\n{one}' for at, one in enumerate(_policies(service)))
        for service in range(size // 10)
    }


def load_set(size: int, schema: Schema, cached: int) -> Loaded:
    """A set of so many policies, put in force."""
    texts = policies_in_files(size)
    start = time.perf_counter()
    policy_set = load_policies(texts, schema)
    loaded = time.perf_counter()
    engine = Engine(policy_set, schema, cached=cached)
    return Loaded(policy_set, engine, loaded - start, time.perf_counter() - loaded)


def request_of(service: int, caller: int, number: int) -> Request:
    """A request as the service makes it, of an own id and port; the mesh's entities are the mesh's own."""
    principal, resource = _entities(service, caller)
    headers = {"x-request-id": f"{number:032x}", "user-agent": "bench", "accept": "*/*", "x-forwarded-proto": "http"}
    return Request(
        principal.uid,
        Uid("Action", "GET"),
        resource.uid,
        {
            "request": {
                "method": "GET",
                "host": "s",
                "path": "/api/items",
                "segments": 2,
                "headers": {"__entity": {"type": "Headers", "id": "request"}},
            },
            "source": {"ip": _extension("ip", "127.0.0.1"), "port": 30_000 + number % 30_000},
            "client_ip": _extension("ip", "127.0.0.1"),
            "destination": {
                "ip": _extension("ip", "127.0.0.1"),
                "port": 9080,
                "labels": {"__entity": LABELS.uid.json()},
            },
            "time": _extension("datetime", f"2026-11-23T12:00:00.{number % 1000:03}Z"),
        },
        (principal, resource, Entity(Uid("Headers", "request"), tags=headers), LABELS),
    )


_made: dict[tuple[int, int], tuple[Entity, Entity]] = {}


def _entities(service: int, caller: int) -> tuple[Entity, Entity]:
    if (service, caller) not in _made:
        path = f"/ns/shop/sa/a{service}-{caller}"
        above = (Uid("TrustDomain", "cluster.local"), Uid("Namespace", "shop"), Uid("Group", f"g{service % 50}"))
        uid = Uid("Workload", f"{ACCOUNT}a{service}-{caller}")
        _made[service, caller] = (
            Entity(uid, {"trust_domain": "cluster.local", "path": path}, above),
            Entity(Uid("Service", f"s{service}.shop"), {"name": f"s{service}", "namespace": "shop"}, above[:2]),
        )
    return _made[service, caller]


def _extension(function: str, argument: str) -> dict[str, Any]:
    return {"__extn": {"fn": function, "arg": argument}}
