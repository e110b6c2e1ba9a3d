"""The service graph's edges out of the mesh's metrics."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.telemetry.graph import OUTSIDE, Counts, Edge, Traffic, look, quantile, traffic

WEB_TO_API = Edge("web-v1", "api-v1", "mutual_tls")


def line(name: str, value: float, **labels: str) -> str:
    text = ",".join(f'{key}="{each}"' for key, each in labels.items())
    return f"{name}{{{text}}} {value}\n"


INBOUND = {
    "reporter": "destination", "source_workload": "web-v1", "destination_workload": "api-v1",
    "destination_service_name": "api", "connection_security_policy": "mutual_tls",
}  # fmt: skip
PAGE = (
    "# TYPE istio_requests_total counter\n"
    + line("istio_requests_total", 7, **INBOUND, response_code="200", decision="allow")
    + line("istio_requests_total", 2, **INBOUND, response_code="403", decision="deny")
    + line("istio_requests_total", 1, **INBOUND, response_code="503", decision="error")
    + "# TYPE istio_request_duration_milliseconds histogram\n"
    + line("istio_request_duration_milliseconds_bucket", 8, **INBOUND, le="5")
    + line("istio_request_duration_milliseconds_bucket", 10, **INBOUND, le="10")
    + line("istio_request_duration_milliseconds_bucket", 10, **INBOUND, le="+Inf")
    + "# TYPE istio_tcp_connections_opened_total counter\n"
    + line("istio_tcp_connections_opened_total", 3, **INBOUND)
)


def test_an_edge_has_what_the_asked_one_counted() -> None:
    found = look({"api-v1": PAGE}, frozenset())

    assert found == {WEB_TO_API: Counts(10, 2, 1, 3, {5.0: 8, 10.0: 10, inf: 10})}


OUTBOUND = {
    "reporter": "source", "source_workload": "web-v1", "destination_workload": "api-v1",
    "destination_service_name": "api", "connection_security_policy": "unknown", "response_code": "200",
}  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "gateway", "edge"),
    [
        ({"decision": ""}, False, None),  # whom it asks counts it
        ({"decision": "allow", "destination_service_name": "a.example"}, False, Edge("web-v1", "a.example", "unknown")),
        ({"decision": "deny"}, True, Edge(OUTSIDE, "web-v1", "unknown")),
        ({"decision": ""}, True, Edge(OUTSIDE, "web-v1", "unknown")),
    ],
)
def test_who_asks_counts_only_what_was_decided_there(labels: dict[str, str], gateway: bool, edge: Edge | None) -> None:
    page = "# TYPE istio_requests_total counter\n" + line("istio_requests_total", 4, **{**OUTBOUND, **labels})

    found = look({"web-v1": page}, frozenset({"web-v1"} if gateway else ()))

    assert list(found) == ([edge] if edge else [])


def test_what_happened_between_two_looks_is_the_busiest_first() -> None:
    other = Edge("a", "b", "none")
    before = {WEB_TO_API: Counts(10, 2, 1, 3, {5.0: 8, inf: 10}), other: Counts(100)}
    now = {WEB_TO_API: Counts(30, 4, 2, 4, {5.0: 18, inf: 30}), other: Counts(100)}

    assert traffic(before, now, 2.0) == [
        Traffic(WEB_TO_API, 10.0, 1.0, 0.5, 0.5, 5.0, 5.0),
        Traffic(other, 0.0, 0.0, 0.0, 0.0, None, None),
    ]


def test_a_proxy_that_began_anew_counts_from_nothing() -> None:
    (found,) = traffic({WEB_TO_API: Counts(50, buckets={inf: 50})}, {WEB_TO_API: Counts(4, buckets={inf: 4})}, 2.0)

    assert found.rate == 2.0


@pytest.mark.parametrize(
    ("share", "buckets", "expected"),
    [
        (0.5, {}, None),
        (0.5, {10.0: 0, inf: 0}, None),
        (0.5, {10.0: 10, inf: 10}, 5.0),
        (0.95, {10.0: 90, 100.0: 100, inf: 100}, 55.0),
        (0.99, {10.0: 90, inf: 100}, 10.0),  # beyond the last bound nothing is known
    ],
)
def test_quantiles_are_those_of_prometheus(share: float, buckets: dict[float, float], expected: float | None) -> None:
    assert quantile(share, buckets) == expected


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.floats(0, 1))
def test_a_quantile_lies_within_its_buckets(counts: list[int], share: float) -> None:
    total, buckets = 0, {}
    for at, count in enumerate(counts):
        total += count
        buckets[float(at + 1)] = float(total)

    found = quantile(share, buckets)

    assert (found is None) == (total == 0)
    assert found is None or 0 <= found <= len(counts)


@pytest.mark.parametrize(
    "line_",
    [
        'istio_requests_total{source_workload="a"',
        'istio_requests_total{source_workload="a"} many',
        'istio_request_duration_milliseconds_bucket{source_workload="a"} 1',
        'istio_request_duration_milliseconds_bucket{source_workload="a",le="much"} 1',
    ],
)
def test_what_is_no_page_is_refused(line_: str) -> None:
    with pytest.raises(ValueError, match=r"is no line of metrics|could not convert"):
        look({"api-v1": PAGE + line_}, frozenset())


def test_what_matters_to_nobody_is_not_looked_into() -> None:
    page = PAGE + 'istio_request_bytes_bucket{le="odd"} x\n{}{{\nenvoy_server_live 1\n'

    assert look({"api-v1": page}, frozenset()) == look({"api-v1": PAGE}, frozenset())
