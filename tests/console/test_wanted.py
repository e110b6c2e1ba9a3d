"""The address bar: one record is judged as the whole journal is searched."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.audit.ask.filters import Filter
from policyd.console.wanted import CHOICES, asks_nothing, filter_of, holds
from policyd.errors import UsageError
from tests.console.conftest import NOW, Console, World

QUERIES = (
    {"decision": "deny"}, {"decision": "allow", "principal": "bookinfo-productpage"}, {"resource": "reviews"},
    {"method": "post"}, {"path": "/reviews/*"}, {"path": "/reviews/1"}, {"path": "*[a]?*"}, {"status": "200"},
    {"policy": "ratings-from-readers"}, {"errors": "1"}, {"kind": "issuance"}, {"since": "2026-11-20T12:00:20Z"},
    {"until": "2026-11-20T12:00:20Z", "decision": "deny"}, {"revision": "00"}, {"request_id": "r-7"}, {},
    {"decided_by": "proxy"}, {"decided_by": "policyd"},
)  # fmt: skip


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_what_is_live_is_what_is_found(console: Console, world: World, query: dict[str, str]) -> None:
    wanted = filter_of(query, NOW)
    source = console.desk.source

    live = {record.decision_id for record in source.recent(lambda record: holds(wanted, record), 1_000)}
    found = {record.decision_id for record in source.search(wanted, 1_000)}

    assert live == found
    assert asks_nothing(wanted) is (query == {})


def test_every_field_of_a_filter_is_judged() -> None:
    asked = {*(name for query in QUERIES for name in query), "change"}
    known = {"failed": "errors", "span": "since"}
    assert {known.get(name, name) for name in Filter.__dataclass_fields__} <= asked
    assert CHOICES["decision"] == ("allow", "deny", "error")


@given(
    st.dictionaries(st.sampled_from(["decision", "status", "since", "path", "kind", "count"]), st.text(max_size=400))
)
def test_any_address_is_understood_or_refused(query: dict[str, str]) -> None:
    with suppress(UsageError):
        filter_of(query, NOW)
