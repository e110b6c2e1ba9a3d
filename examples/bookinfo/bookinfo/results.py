"""What productpage counts: the results of its calls, in Prometheus' text format."""

from __future__ import annotations

from collections import Counter

NAME = "request_result_total"
MEDIA_TYPE = "text/plain; version=0.0.4"


class Results:
    """A counter by service called and status of the last attempt."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, int]] = Counter()

    def count(self, service: str, status: int) -> None:
        """Count one result; services and statuses are few, so the series are."""
        self._counts[service, status] += 1

    def render(self) -> str:
        """Return the text of /metrics."""
        lines = [f"# HELP {NAME} Results of calls to other services.", f"# TYPE {NAME} counter"]
        lines += [
            f'{NAME}{{destination_app="{service}",response_code="{status}"}} {count}'
            for (service, status), count in sorted(self._counts.items())
        ]
        return "\n".join(lines) + "\n"
