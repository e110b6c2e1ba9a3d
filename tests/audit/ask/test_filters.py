"""What a filter finds with SQL is what it finds record by record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from policyd.audit.ask.child import Question
from policyd.audit.ask.copy import refresh
from policyd.audit.ask.filters import Filter, named
from policyd.audit.ask.process import Bounds, asked
from policyd.audit.journal import Journal
from policyd.audit.match import names
from policyd.audit.record import Fault, Shadow
from policyd.audit.scan import Span
from tests.audit.samples import NOON, WRITER, an_entry
from tests.fakes.clock import FakeClock

SPIFFE = "spiffe://cluster.local"
UIDS = [
    "", "reviews", 'Service::"reviews.default"', 'Service::"reviews.shop"', 'Service::"a.b.default"', 'Host::"x.org"',
    f'Workload::"{SPIFFE}/ns/default/sa/web"', f'Workload::"{SPIFFE}/ns/shop/sa/web"', f'Workload::"{SPIFFE}/agent/n1"',
    f'Workload::"{SPIFFE}/ns/shop/sa/we.b"', f'Workload::"{SPIFFE}/x/ns/shop/sa/web"', 'Unauthenticated::"anonymous"',
    'Host::"a\\"b\\\\c"', 'Host::"a\nb"', 'Workload::"http://x/ns/shop/sa/web"', f'Workload::"{SPIFFE}"',
    'Workload::"spiffe://a.org/ns/default/sa/web"', 'Workload::"spiffe://a.org/ns/shop/sa/we.b"',
    'Workload::"spiffe://a.org/ns/default/sa/we.b"', 'Workload::"spiffe://a.org/agent/n1"', 'Host::"a.org/web"',
]  # fmt: skip
WANTED = [
    "", "web", "web.shop", "web.default", "we.b.shop", "reviews", "reviews.default", "reviews.shop", "a.b",
    "a.b.default", "n1", "agent/n1", "sa/web", "shop/sa/web", "anonymous", "x.org", 'a"b\\c', "a\nb", "x", "%", "*",
    "' OR true --", SPIFFE, "a.org/web", "a.org/we.b.shop", "a.org/we.b", "a.org/web.default", "a.org/agent/n1", "/web",
    "cluster.local/web", "cluster.local/web.shop", "a.org/", *UIDS,
]  # fmt: skip


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Records that differ in one thing each."""
    folder = tmp_path_factory.mktemp("filtered")
    journal = Journal(folder / "journal", WRITER, FakeClock())
    for uid in UIDS:
        journal.append(an_entry(principal=uid))
    for change in CHANGES:
        journal.append(an_entry(principal="other", **change))
    journal.close()
    return refresh(folder / "journal", folder / "columns", print, lambda *_: None)


def test_a_name_means_the_same_in_sql(copies: list[Path]) -> None:
    conditions = [named("principal", wanted) for wanted in WANTED]
    sql = "SELECT principal FROM records WHERE seq <= {} AND {} ORDER BY seq"
    questions = [Question(sql.format(len(UIDS), one.sql), one.values) for one in conditions]
    with asked(copies, questions, Bounds()) as answers:
        found = {wanted: [row[0] for row in one.rows] for wanted, one in zip(WANTED, answers, strict=True)}
    assert found == {wanted: [uid for uid in UIDS if names(uid, wanted)] for wanted in WANTED}


CHANGES = [
    {"decision": "deny", "status": 403},
    {"decision": "error", "status": 503, "errors": (Fault("decision", "x"),)},
    {"errors": (Fault("some-policy", "x"),)},
    {"kind": "change", "decision": None},
    {"shadow": Shadow(decision="error", errors=(Fault("shadow_skipped", "x"),), revision="77")},
    {"reasons": ("a", "b"), "revision": "77aa"},
    {"context": {"request": {"method": "PUT", "path": "/x/[1]?/y"}}, "request_id": "r-1"},
    {"time": NOON + timedelta(hours=1)},
    {"time": NOON - timedelta(microseconds=1)},
    {"shadow": Shadow(decision="allow", reasons=("a",), revision="77")},
    {"shadow": Shadow(decision="deny", revision="77")},
    {"shadow": Shadow(decision="allow", revision="77"), "decision": "deny", "status": 403},
    {"shadow": Shadow(decision="error", revision="77")},
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        (Filter(change="agree"), [10]),
        (Filter(change="would_deny"), [11]),
        (Filter(change="would_allow"), [12]),
        (Filter(change="skipped"), [5]),
        (Filter(change="error"), [13]),
        (Filter(decision="deny"), [1, 12]),
        (Filter(decision="error"), [2]),
        (Filter(failed=True), [2, 3]),
        (Filter(kind="change"), [4]),
        (Filter(policy="b"), [6]),
        (Filter(revision="77"), [6]),
        (Filter(method="PUT"), [7]),
        (Filter(path="/x/[1]?/y"), [7]),
        (Filter(path="/x/[*]?/*"), [7]),
        (Filter(path="/x/?1]?/*"), []),
        (Filter(request_id="r-1"), [7]),
        (Filter(status=403), [1, 12]),
        (Filter(span=Span(NOON + timedelta(seconds=1))), [8]),
        (Filter(span=Span(None, NOON)), [9]),
        (
            Filter(span=Span(NOON.astimezone(tz=None), datetime(2026, 11, 23, 12, 0, 1, tzinfo=UTC)), decision="deny"),
            [1, 12],
        ),
        (Filter(resource="' OR true --"), []),
    ],
)
def test_a_filter_finds_what_it_says(copies: list[Path], wanted: Filter, found: list[int]) -> None:
    condition = wanted.condition()
    sql = f"SELECT seq - {len(UIDS)} FROM records WHERE principal = 'other' AND {condition.sql} ORDER BY seq"
    with asked(copies, [Question(sql, condition.values)], Bounds()) as answers:
        assert [row[0] for row in next(answers).rows] == found
