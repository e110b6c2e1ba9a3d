"""Where the time of a decision goes inside policyd: one check after another, in process, without gRPC.

The difference to the CPU of policyd in `proxy` is gRPC, TLS and threads that wait for one another.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.processes import ROOT
from bench.table import Row, row
from policyd import envoy_api
from policyd.audit.journal import Journal
from policyd.authz.request import read_check
from policyd.authz.ruling import Ruling, make_ruling
from policyd.authz.service import Authorizer
from policyd.cedar.policies import PolicySet, load_policies, set_of
from policyd.offline.loaded import load_folder
from policyd.spiffe import SpiffeId
from policyd.telemetry.metrics import Metrics

CALLS = 3_000
ROUNDS = 5
CHECK = "envoy.service.auth.v3.CheckRequest"


def check_message() -> Any:
    """What the gateway's Envoy asks about a product page."""
    address = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 8080}}}
    headers = {"x-request-id": "ab8dd5d2-f07c-43e0-9ce5-b70ffebd8a40", "user-agent": "bench", "accept": "*/*"}
    http = {"method": "GET", "path": "/productpage", "host": "127.0.0.1:8080", "headers": headers}
    attributes = {
        "source": address,
        "destination": address,
        "request": {"http": http},
        "context_extensions": {"policyd.listener": "ingress/gateway/8080"},
    }
    return envoy_api.build(CHECK, {"attributes": attributes})


def _microseconds(call: Callable[[], object]) -> float:
    """The median of several rounds, after one that does not count."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.process_time()
        for _ in range(CALLS):
            call()
        times.append((time.process_time() - start) / CALLS * 1e6)
    return statistics.median(times[1:])


def run() -> list[Row]:
    """CPU time of each part, for Bookinfo's policies and a decision that is remembered."""
    ruling = load_folder(ROOT / "examples" / "bookinfo").live.ruling
    message, peer, now = (
        check_message(),
        SpiffeId.workload("cluster.local", "default", "bookinfo-ingress"),
        datetime.now(UTC),
    )
    body, parse = message.SerializeToString(), envoy_api.message(CHECK).FromString
    query = read_check(message, peer, ruling.mesh, now, ruling.headers_read)
    question = ruling.engine.question(ruling.request(query.facts))

    same = replace(ruling, shadow=ruling)
    wider = replace(ruling, shadow=make_ruling(ruling.mesh, _reading(ruling), ruling.schema))

    def authorizer(record: Callable[..., object], ruling: Ruling = ruling) -> Authorizer:
        return Authorizer(
            ruling=lambda: ruling,
            record=record,
            metrics=Metrics(),
            clock=lambda: datetime.now(UTC),
            stopwatch=time.perf_counter,
        )

    with tempfile.TemporaryDirectory(prefix="policyd-bench-") as name:
        journal = Journal(Path(name) / "journal", "bench", lambda: datetime.now(UTC))
        kept, unkept = authorizer(journal.append), authorizer(lambda entry: None)
        whole = _microseconds(lambda: kept.check(body, peer))
        without = _microseconds(lambda: unkept.check(body, peer))
        tried, reading = authorizer(journal.append, same), authorizer(journal.append, wider)
        beside = _microseconds(lambda: tried.check(body, peer))
        apart = _microseconds(lambda: reading.check(body, peer))
        journal.close()
    return [
        row("a whole check", whole, "us"),
        row("of it: the journal", whole - without, "us"),
        row("of it: parsing the message", _microseconds(lambda: parse(body)), "us"),
        row(
            "of it: reading who asks for what", _microseconds(lambda: read_check(message, peer, ruling.mesh, now)), "us"
        ),
        row("of it: the question", _microseconds(lambda: ruling.engine.question(ruling.request(query.facts))), "us"),
        row("of it: the answer, remembered", _microseconds(lambda: ruling.engine.answer(question)), "us"),
        row("more, with the same policies as their own shadow", beside - whole, "us"),
        row("more, with a shadow that reads a header of its own", apart - whole, "us"),
    ]


def _reading(ruling: Ruling) -> PolicySet:
    """The policies in force, and one that looks at a header."""
    text = '@id("agents") forbid (principal, action in Action::"http", resource)'
    text += (
        ' when { context.request.headers.hasTag("user-agent") && context.request.headers.getTag("user-agent") == "x" };'
    )
    return set_of((*ruling.policy_set.policies, *load_policies({"tried.cedar": text}, ruling.schema).policies))
