"""What Prometheus gets."""

from __future__ import annotations

import threading

import pytest

from policyd import names
from policyd.telemetry.metrics import Metrics, expose
from tests.golden import check_text

REVISION = "5f" * 32


def busy() -> Metrics:
    metrics = Metrics()
    metrics.ruled(REVISION)
    metrics.decided("allow", "inbound", 0.0003, REVISION)
    metrics.decided("allow", "inbound", 0.004, REVISION)
    metrics.decided("deny", "gateway", 0.0009, REVISION)
    metrics.decided("error", "", 2.0, "")
    metrics.shadowed("agree")
    metrics.shadowed("would_deny")
    metrics.journal_record("decision")
    metrics.journal_failure()
    metrics.reloaded("taken")
    metrics.reloaded("refused")
    metrics.change_refused(True)
    metrics.pushed("reviews-v1", "clusters")
    metrics.rejected("reviews-v1", "routes", "no such cluster")
    metrics.connections(7)
    metrics.issued("workload")
    metrics.refused("csr")
    metrics.ca_expiry({"root": 1_800_000_000})
    metrics.credential_expiry({"credentials/books/tls.crt": 1_900_000_000})
    metrics.keys_fetched("new")
    metrics.keys_failing(2)
    metrics.federated_failing(1)
    metrics.instances_unhealthy(1)
    return metrics


def test_the_exposition_is_this(request: pytest.FixtureRequest) -> None:
    text = expose(busy().registry).decode()
    check_text("telemetry/metrics.txt", text, update=request.config.getoption("--update-golden"))


def test_every_metric_that_has_a_name_is_there() -> None:
    families = {metric.name: (metric.type, metric.documentation) for metric in Metrics().registry.collect()}
    assert families == {
        name.removesuffix("_total"): (metric.kind, metric.help)
        for name, metric in names.METRICS.items()
        if metric.of == "policyd"
    }


def test_a_text_of_others_is_no_label() -> None:
    metrics = Metrics()
    before = expose(metrics.registry).count(b"\n")
    for number in range(100):
        metrics.decided(f"evil-{number}", f"evil-{number}", 0.1, f"{number:064x}")
        metrics.shadowed(f"evil-{number}")
        metrics.journal_record(f"evil-{number}")
        metrics.pushed(f"evil-{number}", f"evil-{number}")
        metrics.issued(f"evil-{number}")
        metrics.refused(f"evil-{number}")
        metrics.ca_expiry({f"evil-{number}": 1})
        metrics.keys_fetched(f"evil-{number}")
    text = expose(metrics.registry)
    assert b"evil" not in text
    assert text.count(b"\n") == before + 7
    assert b'policyd_decisions_total{decision="other",side="other"} 100.0\n' in text


def test_totals_are_all_denials_and_errors() -> None:
    assert Metrics().totals() == (0, 0, 0)
    assert busy().totals() == (4, 1, 1)


def test_threads_lose_no_count() -> None:
    metrics = Metrics()
    count = lambda: [metrics.decided("allow", "inbound", 0.001, REVISION) for _ in range(5000)]  # noqa: E731
    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.totals() == (20_000, 0, 0)


def test_two_servers_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.decided("allow", "inbound", 0.1, REVISION)
    assert (first.totals(), second.totals()) == ((1, 0, 0), (0, 0, 0))


def test_of_credentials_those_are_shown_that_are_in_use() -> None:
    metrics = Metrics()
    metrics.credential_expiry({"credentials/a.crt": 1, "credentials/b.crt": 2})
    metrics.credential_expiry({"credentials/b.crt": 3})

    lines = [line for line in expose(metrics.registry).splitlines() if line.startswith(b"policyd_credential_expiry")]
    assert lines == [b'policyd_credential_expiry_timestamp_seconds{file="credentials/b.crt"} 3.0']


def test_what_proxies_decide_counts_among_all_and_under_its_revision_as_long_as_that_is_shown() -> None:
    metrics = busy()
    metrics.decided_by_proxy("deny", REVISION, 5)
    metrics.decided_by_proxy("allow", "0a" * 32, 2)  # told late, under a revision that is long gone

    text = expose(metrics.registry).decode()

    assert metrics.totals() == (11, 6, 1)
    assert 'policyd_decisions_total{decision="deny",side="inbound"} 5.0' in text
    assert f'policyd_revision_decisions_total{{decision="deny",revision="{REVISION}"}} 6.0' in text
    assert f'policyd_revision_decisions_total{{decision="allow",revision="{REVISION}"}} 2.0' in text
    assert 'policyd_local_decisions_total{decision="allow"} 2.0' in text
    assert "0a0a" not in text
