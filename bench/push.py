"""How long a changed VirtualService takes from the file to the last sidecar."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import httpx

from bench.processes import answer, mesh
from bench.table import Row, row

CHANGES = 5
ROUTE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: push}}
spec:
  hosts: [ratings]
  http:
    - match: [{{uri: {{exact: /push}}}}]
      directResponse: {{status: 200, body: {{string: "{version}"}}}}
    - route: [{{destination: {{host: ratings, port: {{number: 9080}}}}}}]
"""


def _wait_for(version: str, proxies: list[httpx.Client]) -> float:
    waiting = list(proxies)
    start = time.perf_counter()
    while waiting:
        if time.perf_counter() - start > 30:
            raise TimeoutError(f"{len(waiting)} sidecars did not get version {version}")
        waiting = [proxy for proxy in waiting if proxy.get("http://ratings:9080/push").text != version]
    return time.perf_counter() - start


def _change(directory: Path, version: str) -> None:
    target = directory / "mesh" / "push.yaml"
    draft = target.with_suffix(".tmp")
    draft.write_text(ROUTE.format(version=version))
    draft.rename(target)


def run() -> list[Row]:
    """Change the file, ask every sidecar's own proxy until all answer by the new route."""
    with mesh() as directory:
        places: list[dict[str, Any]] = answer(directory, "status")["instances"]
        urls = [place["proxy_url"] for place in places if place["proxy_url"]]
        proxies = [httpx.Client(proxy=url, trust_env=False) for url in urls]
        times = []
        for number in range(CHANGES):
            _change(directory, f"v{number}")
            times.append(_wait_for(f"v{number}", proxies))
        for proxy in proxies:
            proxy.close()
    return [
        row("sidecars", len(proxies), "Envoys"),
        row("file changed to last sidecar, median", statistics.median(times), "s", at_most=1.0),
        row("file changed to last sidecar, slowest", max(times), "s"),
    ]
