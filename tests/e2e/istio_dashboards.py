"""What Istio's published dashboards ask a Prometheus: each form of a question of the mesh, service and workload views.

Law: an answer is a row by its labels, so that a label that is missing is seen; the names and labels are Istio's own.
Their lines for mutual TLS and for other connections are one question each here, of destinations, who know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

DETAILS: Final = "details.default.svc.cluster.local"
ECHO: Final = "echo.default.svc.cluster.local"
MUTUAL: Final = 'connection_security_policy="mutual_tls"'
QUANTILES: Final = ("0.50", "0.90", "0.95", "0.99")
SIZES: Final = ("istio_request_bytes", "istio_response_bytes")
BYTES: Final = ("istio_tcp_received_bytes_total", "istio_tcp_sent_bytes_total")
_SENDERS: Final = 'reporter=~"source|waypoint"'

Labels = dict[str, str]
# by which a view splits what it shows, and one of the rows that come of it
BY_SOURCE: Final[Labels] = {"source_workload": "productpage-v1", "source_workload_namespace": "default"}
BY_TARGET: Final[Labels] = {"destination_workload": "details-v1", "destination_workload_namespace": "default"}
BY_SERVICE: Final[Labels] = {"destination_service": DETAILS}
TCP_SOURCE: Final[Labels] = {"source_workload": "reviews-v1", "source_workload_namespace": "default"}
TCP_TARGET: Final[Labels] = {"destination_workload": "echo-v1", "destination_workload_namespace": "default"}
TCP_SERVICE: Final[Labels] = {"destination_service": ECHO}


class Asked(NamedTuple):
    """A question, and the labels of a row that has to be among its answers."""

    expression: str
    row: Labels


class View(NamedTuple):
    """What one row of panels is about: which requests and which connections, split by what."""

    which: str
    row: Labels
    connections: str
    tcp_row: Labels


VIEWS: Final = (
    # of the service dashboard: in sum, by who asks, by who answers
    View(f'reporter=~"destination", destination_service=~"{DETAILS}"', {}, f'destination_service=~"{ECHO}"', {}),
    View(f'reporter=~"destination", {MUTUAL}, destination_service=~"{DETAILS}", source_workload=~"productpage-v1", '
         'source_workload_namespace=~"default"', BY_SOURCE, f'{MUTUAL}, destination_service=~"{ECHO}"', TCP_SOURCE),
    View(f'reporter="destination", {MUTUAL}, destination_service=~"{DETAILS}", destination_workload=~"details-v1", '
         'destination_workload_namespace=~"default"', BY_TARGET,
         f'{MUTUAL}, destination_service=~"{ECHO}"', TCP_TARGET),
    # of the workload dashboard: in sum, what comes in, what goes out
    View('reporter="destination", destination_workload_namespace=~"default", destination_workload=~"details-v1"', {},
         'destination_workload_namespace=~"default", destination_workload=~"echo-v1"', {}),
    View(f'reporter="destination", {MUTUAL}, destination_workload=~"details-v1", '
         'destination_workload_namespace=~"default"', BY_SOURCE, 'destination_workload=~"echo-v1"', TCP_SOURCE),
    View('reporter="source", source_workload=~"productpage-v1", source_workload_namespace=~"default", '
         f'destination_service=~"{DETAILS}"', BY_SERVICE, 'reporter="source", source_workload=~"reviews-v1"',
         TCP_SERVICE),
)  # fmt: skip


def asked() -> list[Asked]:
    """All of them."""
    return [*_mesh(), *(one for view in VIEWS for one in _panels(view)), *_variables()]


def _panels(view: View) -> Iterator[Asked]:
    """How many, how many well, how long, how large, and the bytes of connections."""
    requests = f"istio_requests_total{{{view.which}}}"
    well = f'istio_requests_total{{{view.which}, response_code!~"5.*"}}'
    coded = view.row and {**view.row, "response_code": "200"}
    yield Asked(f"round(sum(irate({requests}[5m])){_by(coded)}, 0.001)", coded)
    yield Asked(f"sum(irate({well}[5m])){_by(view.row)} / sum(irate({requests}[5m])){_by(view.row)}", view.row)
    for quantile in QUANTILES:
        milliseconds = _quantile(quantile, "istio_request_duration_milliseconds", view)
        yield Asked(
            f"({milliseconds} / 1000) or {_quantile(quantile, 'istio_request_duration_seconds', view)}", view.row
        )
        yield from (Asked(_quantile(quantile, size, view), view.row) for size in SIZES)
    for name in BYTES:
        yield Asked(f"round(sum(irate({name}{{{view.connections}}}[1m])){_by(view.tcp_row)}, 0.001)", view.tcp_row)


def _quantile(quantile: str, name: str, view: View) -> str:
    split = ", ".join(("le", *view.row))
    return f"histogram_quantile({quantile}, sum(irate({name}_bucket{{{view.which}}}[1m])) by ({split}))"


def _by(row: Labels) -> str:
    return f" by ({', '.join(row)})" if row else ""


def _mesh() -> Iterator[Asked]:
    """The mesh dashboard."""
    requests = f"rate(istio_requests_total{{{_SENDERS}}}[1m])"
    well = f'rate(istio_requests_total{{{_SENDERS}, response_code!~"5.."}}[1m])'
    yield Asked(f"round(sum({requests}), 0.01)", {})
    yield Asked(f"sum({well}) / sum({requests})", {})
    for codes in ("4..", "5.."):
        of_these = f'rate(istio_requests_total{{{_SENDERS}, response_code=~"{codes}"}}[1m])'
        yield Asked(f"round(sum({of_these}), 0.01) or vector(0)", {})
    yield _joined(f"sum by ({', '.join((*BY_TARGET, *BY_SERVICE))}) ({requests})", BY_TARGET | BY_SERVICE)
    split = ", ".join(BY_TARGET)
    for quantile in ("0.5", "0.9", "0.99"):
        buckets = f"rate(istio_request_duration_milliseconds_bucket{{{_SENDERS}}}[1m])"
        yield _joined(f"histogram_quantile({quantile}, sum by (le, {split}) ({buckets}))", BY_TARGET)
    yield _joined(f"sum by ({split}) ({well}) / sum by ({split}) ({requests})", BY_TARGET)
    for name in BYTES:
        row = TCP_TARGET | TCP_SERVICE
        yield _joined(f"sum by ({', '.join(row)}) (rate({name}{{{_SENDERS}}}[1m]))", row)


def _joined(query: str, row: Labels) -> Asked:
    """A row of a table, which links to the workload's own view."""
    name, namespace = row["destination_workload"], row["destination_workload_namespace"]
    ends = '"destination_workload", "destination_workload_namespace"'
    expression = f'label_join({query}, "destination_workload_var", ".", {ends})'
    return Asked(expression, {**row, "destination_workload_var": f"{name}.{namespace}"})


def _variables() -> Iterator[Asked]:
    """What the lists to choose from are filled with."""
    chosen = 'reporter=~"destination", destination_service="{}"'
    for labels, tcp in ((BY_SOURCE, TCP_SOURCE), (BY_TARGET, TCP_TARGET), (BY_SERVICE, TCP_SERVICE)):
        for (label, value), other in zip(labels.items(), tcp.values(), strict=True):
            requests = f"sum(istio_requests_total{{{chosen.format(DETAILS)}}}) by ({label})"
            connections = f"sum(istio_tcp_sent_bytes_total{{{chosen.format(ECHO)}}}) by ({label})"
            yield Asked(f"{requests} or {connections}", {label: value})
            yield Asked(f"{requests} or {connections}", {label: other})
    yield Asked("count(istio_requests_total) by (reporter)", {"reporter": "destination"})
    yield Asked("count(istio_requests_total) by (reporter)", {"reporter": "source"})
    for side in ("source", "destination"):  # one cluster, which has no name: all of it is chosen
        yield Asked(f'sum(istio_requests_total{{{side}_cluster=~"|.*"}})', {})
