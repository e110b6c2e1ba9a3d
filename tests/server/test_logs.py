"""What the server says of decisions and pushes: one line each, with what leads on from it, and no more than is read."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from policyd.audit.record import Entry, Fault
from policyd.config.audit import MaskSettings
from policyd.environment import Level
from policyd.errors import IncompleteRequest, JournalError
from policyd.server.decision_log import LINES, DecisionLog
from policyd.server.push_log import PushLog
from policyd.telemetry.logs import configure_logs
from tests.fakes.xds_observer import FakeObserver

pytestmark = pytest.mark.usefixtures("logging_restored")

ALLOWED = Entry(
    time=datetime(2026, 1, 1, tzinfo=UTC),
    kind="decision",
    decision="allow",
    status=200,
    decision_id="d-1",
    principal='Workload::"spiffe://cluster.local/ns/default/sa/web"',
    action='Action::"GET"',
    resource='Service::"api.default"',
    reasons=("web-may",),
    context={"request": {"headers": {"x-secret": "hidden"}, "path": "/hidden"}},
    revision="5f2e",
    proxy="api-v1",
    request_id="r-1",
    trace_id="4bf9",
    span_id="00f0",
    duration_us=250,
)
SAID = {
    "decision": "allow", "status": 200, "decision_id": "d-1", "request_id": "r-1", "trace_id": "4bf9",
    "span_id": "00f0", "principal": ALLOWED.principal, "action": 'Action::"GET"', "resource": 'Service::"api.default"',
    "reasons": ["web-may"], "revision": "5f2e", "proxy": "api-v1", "duration_us": 250,
}  # fmt: skip
FAILED = Entry(
    time=ALLOWED.time, kind="decision", decision="error", status=503, decision_id="d-2", trace_id="4bf9",
    errors=(Fault("decision", "no revision is in force"),),
)  # fmt: skip


class Said:
    """What is logged from a level on."""

    def __init__(self, level: Level) -> None:
        self._stream = io.StringIO()
        configure_logs(stream=self._stream, level=level)

    def lines(self) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self._stream.getvalue().splitlines()]
        return [{name: value for name, value in one.items() if name not in ("timestamp", "logger")} for one in found]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def kept(entries: list[Entry]) -> DecisionLog:
    return DecisionLog(entries.append, Clock())


def test_at_debug_there_is_a_line_of_each_decision_with_the_ids_that_lead_on_and_nothing_of_the_request() -> None:
    said, entries = Said("debug"), list[Entry]()
    kept(entries)(ALLOWED)

    assert (said.lines(), entries) == ([{"event": "decision.made", "level": "debug", **SAID}], [ALLOWED])
    assert "hidden" not in str(said.lines())


def test_else_only_of_what_could_not_be_decided() -> None:
    said, entries = Said("info"), list[Entry]()
    log = kept(entries)
    log(ALLOWED)
    log(FAILED)

    assert entries == [ALLOWED, FAILED]
    assert said.lines() == [
        {
            "event": "decision.failed", "level": "warning", "why": "no revision is in force", "decision": "error",
            "status": 503, "decision_id": "d-2", "trace_id": "4bf9",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("request.host", "`[masked]` is no name to ask for"),
        ("request.path", "`secret.example` is no name to ask for"),
    ],
)
def test_an_error_quotes_nothing_that_the_operator_masks(path: str, why: str) -> None:
    said, entries = Said("info"), list[Entry]()
    failed = replace(FAILED, errors=(Fault(IncompleteRequest.code, "`secret.example` is no name to ask for"),))
    DecisionLog(entries.append, Clock(), [MaskSettings(attribute=path)])(failed)

    assert ([one["why"] for one in said.lines()], entries) == ([why], [failed])


def test_what_could_not_be_kept_is_told_with_all_that_no_record_has() -> None:
    def full(_entry: Entry) -> None:
        raise JournalError("the disk is full")

    said = Said("info")
    with pytest.raises(JournalError):
        DecisionLog(full, Clock())(ALLOWED)

    assert said.lines() == [{"event": "decision.not_kept", "level": "warning", "why": "the disk is full", **SAID}]


def test_however_many_fail_there_are_few_lines_and_they_say_how_many_were_left_out() -> None:
    said, clock = Said("info"), Clock()
    log = DecisionLog(lambda _entry: None, clock)
    for _ in range(100):
        log(FAILED)
    assert len(said.lines()) == LINES.burst

    clock.now += 1 / LINES.per_second
    log(FAILED)
    assert [one.get("left_out") for one in said.lines()] == [*[None] * LINES.burst, 100 - LINES.burst]


@pytest.mark.parametrize(
    ("level", "events"), [("info", ["proxy.rejected"]), ("debug", ["proxy.sent", "proxy.rejected"])]
)
def test_a_push_is_counted_and_one_that_a_proxy_rejected_is_said_with_its_reason(
    level: Level, events: list[str]
) -> None:
    said, counts = Said(level), FakeObserver()
    log = PushLog(counts)
    log.pushed("web-v1", "routes")
    log.rejected("web-v1", "routes", "no such cluster")
    log.converged(0.5)
    log.connections(3)

    assert (counts.pushes, counts.rejections) == ([("web-v1", "routes")], [("web-v1", "routes", "no such cluster")])
    assert (counts.convergences, counts.counts) == ([0.5], [3])
    assert [one["event"] for one in said.lines()] == events
    assert said.lines()[-1] == {
        "event": "proxy.rejected", "level": "warning", "proxy": "web-v1", "type": "routes", "why": "no such cluster",
    }  # fmt: skip
