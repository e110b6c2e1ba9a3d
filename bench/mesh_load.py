"""Requests through real Envoys while routes, endpoints, clusters and certificates change under them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from bench.processes import answer, mesh

SECONDS, CALLERS, EVERY, LIFE = 20.0, 4, 0.5, 6  # LIFE: seconds that a certificate lives
RULES = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews}}
spec:
  host: reviews
  trafficPolicy:
    connectionPool: {{tcp: {{maxConnections: {connections}}}}}
  subsets:
    - {{name: some, labels: {{{labels}}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec:
  hosts: [reviews]
  http: [{{route: [{{destination: {{host: reviews, subset: some}}}}], timeout: {seconds}s}}]
"""


class Load:
    """Callers that ask without a pause, and what came of it."""

    def __init__(self, proxy: str) -> None:
        self.seen: Counter[str] = Counter()
        self.copies: set[str] = set()
        self._proxy = proxy
        self._stop = threading.Event()
        self._callers = [threading.Thread(target=self._ask) for _ in range(CALLERS)]

    def _ask(self) -> None:
        with httpx.Client(proxy=self._proxy, trust_env=False, timeout=20) as client:
            while not self._stop.is_set():
                try:
                    reply = client.get("http://reviews:9080/reviews/0")
                    self.seen["answered" if reply.status_code == 200 else f"status {reply.status_code}"] += 1
                    if reply.status_code == 200:
                        self.copies.add(reply.json()["podname"])
                except httpx.HTTPError as error:
                    self.seen[type(error).__name__] += 1

    def __enter__(self) -> Load:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for caller in self._callers:
            caller.join()


def change(directory: Path, number: int) -> None:
    """Another timeout (routes), other labels (endpoints) and, each fourth time, another limit (clusters)."""
    labels = ("version: v1", "app: reviews", "version: v2", "app: reviews")[number % 4]
    text = RULES.format(connections=1000 + number // 4, labels=labels, seconds=10 + number)
    draft = directory / "rules.tmp"
    draft.write_text(text)
    draft.rename(directory / "mesh" / "rules.yaml")


def renewals(directory: Path) -> int:
    """How often a sidecar was given a new certificate, as the agent tells."""
    return (directory / ".policyd" / "run" / "policyd.agent.log").read_text().count("sidecar.renewed")


def run() -> dict[str, Any]:
    """What came of the requests, and what changed meanwhile."""
    with mesh(f"ca: {{ttl: {LIFE}s}}\n") as directory:
        places = answer(directory, "status")["instances"]
        [proxy] = [place["proxy_url"] for place in places if place["name"] == "productpage-v1"]
        change(directory, 0)
        time.sleep(1.0)
        before, changes = renewals(directory), 0
        with Load(proxy) as load:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                changes += 1
                change(directory, changes)
                time.sleep(EVERY)
        return {
            "seen": dict(load.seen),
            "copies": sorted(load.copies),
            "changes": changes,
            "renewals": renewals(directory) - before,
        }
