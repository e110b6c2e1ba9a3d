"""Connections that a sidecar decides by itself: the answers, one record each, and that as soon as there is one."""

from __future__ import annotations

import base64
import re
import socket
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.conftest import RunningMesh, meshed
from tests.e2e.terminal import wait_until
from tests.e2e.test_local import scraped
from tests.e2e.wire import Echo, Echoing
from tests.ports import free_port
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("local")]

PATIENCE = 90  # seconds, on a busy machine
POLICIES = """\
@id("from-web")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"connect", resource)
when { context.source.ip.isLoopback() && context.destination.port > 6999 };
@id("not-api")
forbid (principal == Workload::"spiffe://cluster.local/ns/default/sa/api", action == Action::"connect",
  resource == Service::"echo.default");
@id("safe-by-name")
permit (principal, action == Action::"connect", resource == Service::"safe.default")
when { context has sni && context.sni == "safe" };
"""
ENFORCEMENT = """\
apiVersion: policyd.io/v1
kind: Enforcement
metadata: {{name: echo}}
spec: {{selector: {{matchLabels: {{app: echo}}}}, enforcement: {}}}
---
apiVersion: policyd.io/v1
kind: Enforcement
metadata: {{name: safe}}
spec: {{selector: {{matchLabels: {{app: safe}}}}, enforcement: local, durability: async}}
"""
LOCAL = "local, durability: async, samplePercent: 100"
OWN = ("writer", "seq", "time", "decision_id", "prev", "hash", "chain", "request_id", "duration_us", "decided_by",
       "revision", "cached", "trace_id", "span_id")  # fmt: skip


class World(Echoing):
    """A mesh with an echo in it, and a port that no application listens at."""

    def decisions(self, known: Collection[str] = ()) -> list[dict[str, Any]]:
        """The records about the echo's sidecar but for those that are known, in the order in which it was asked."""
        found = [one for one in self.mesh.records("echo-v1") if one["kind"] == "decision"]
        return sorted((one for one in found if one["decision_id"] not in known), key=lambda one: str(one["time"]))

    def known(self) -> set[str]:
        """The decisions on record."""
        return {str(one["decision_id"]) for one in self.decisions()}

    def arrived(self, known: Collection[str], count: int = 1) -> list[dict[str, Any]]:
        """So many records more than are known, once they are there."""
        wait_until(lambda: len(self.decisions(known)) >= count, PATIENCE)
        return self.decisions(known)

    @contextmanager
    def opened(self, by: str) -> Iterator[socket.socket]:
        """A tunnel to the echo that stays open."""
        proxy = urlsplit(self.mesh.place(by)["proxy_url"])
        secret = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        with socket.create_connection((proxy.hostname or "", proxy.port or 0), timeout=20) as raw:
            asked = f"CONNECT echo:7000 HTTP/1.1\r\nHost: echo:7000\r\nProxy-Authorization: Basic {secret}\r\n\r\n"
            raw.sendall(asked.encode())
            said = b""
            while not said.endswith(b"speaks first, "):
                said += raw.recv(1)
            yield raw


WORKLOADS = """\
workloads:
  web-v1: {{service: web, port: 80}}
  safe-v1: {{service: safe, port: 443, protocol: tls}}
  api-v1: {{service: api, port: 80}}
  echo-v1:
    service: echo
    ports:
      - {{port: 7000, name: tcp, protocol: tcp, appPort: {}}}
      - {{port: 7001, name: tcp-gone, protocol: tcp, appPort: {}}}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    echo = Echo(free_port())
    files = {
        "workloads.yaml": WORKLOADS.format(echo.port, free_port()),
        "policies/all.cedar": POLICIES,
        "mesh/enforcement.yaml": ENFORCEMENT.format(LOCAL),
    }
    with meshed(tmp_path_factory.mktemp("connections") / "mesh", files) as mesh, echo.served():
        yield World(mesh, echo)


def test_a_connection_is_on_record_once_while_it_is_open(world: World) -> None:
    known = world.known()
    with world.opened("web-v1"):
        [record] = world.arrived(known)

    assert (record["decided_by"], record["decision"], record["reasons"], record["action"]) == (
        "proxy", "allow", ["from-web"], 'Action::"connect"',
    )  # fmt: skip
    assert record["context"]["destination"]["port"] == 7000
    assert world.connect("api-v1") == (403, b"")  # told behind the end of the first
    assert [one["reasons"] for one in world.arrived(known, 2)] == [["from-web"], ["not-api"]]


def test_who_is_refused_gets_no_byte_through_and_is_on_record_once(world: World) -> None:
    known, seen = world.known(), len(world.echo.seen)

    answers = [world.connect("api-v1"), world.connect("api-v1", "echo:7001")]

    assert answers == [(403, b""), (403, b"")]
    assert len(world.echo.seen) == seen
    records = world.arrived(known, 2)
    assert [(one["decision"], one["reasons"], one["decided_by"]) for one in records] == [
        ("deny", ["not-api"], "proxy"), ("deny", ["not-api"], "proxy"),
    ]  # fmt: skip


def test_who_is_permitted_where_there_is_no_application_is_on_record_once(world: World) -> None:
    known = world.known()

    status = world.connect("web-v1", "echo:7001")[0]

    assert status == 503
    assert world.connect("api-v1", "echo:7001")[0] == 403  # told behind it
    assert [one["reasons"] for one in world.arrived(known, 2)] == [["from-web"], ["not-api"]]


def test_by_the_name_that_tls_in_a_tunnel_is_for(world: World) -> None:
    def records() -> list[dict[str, Any]]:
        return [one for one in world.mesh.records("safe-v1") if one["kind"] == "decision"]

    statuses = [world.connect("api-v1", f"{name}:443")[0] for name in ("safe", "safe.default")]

    assert statuses == [200, 403]
    wait_until(lambda: len(records()) == 2, PATIENCE, lambda: str(records()))
    assert [(one["decided_by"], one.get("reasons", []), one["context"]["sni"]) for one in records()] == [
        ("proxy", ["safe-by-name"], "safe"),
        ("proxy", [], "safe.default"),
    ]
    expected = {
        ("opened", "allow", "safe-by-name"): 1,
        ("closed", "allow", "safe-by-name"): 1,
        ("closed", "deny", ""): 1,
    }
    wait_until(
        lambda: counted(world.mesh, "safe-v1") == expected, PATIENCE, lambda: str(counted(world.mesh, "safe-v1"))
    )


def counted(mesh: RunningMesh, proxy: str) -> Counter[tuple[str, str, str]]:
    """The connections that a sidecar let in or refused, as it counts them: opened or closed, decision and policy."""
    page = httpx.get(mesh.metrics, trust_env=False, timeout=20).text
    found: Counter[tuple[str, str, str]] = Counter()
    for moment, tags, n in re.findall(r"^istio_tcp_connections_(\w+)_total\{([^}]*)\} (\S+)", page, re.MULTILINE):
        labels = dict(re.findall(r'([a-z_]+)="([^"]*)"', tags))
        if (labels["proxy"], labels["reporter"]) == (proxy, "destination"):
            found[moment, labels["decision"], labels["policy"]] += int(float(n))
    return found


def test_the_sample_of_connections_is_decided_alike(world: World) -> None:
    def is_compared() -> bool:
        """A busy policyd may be too late for one."""
        world.connect("web-v1")
        return scraped(world.mesh, "policyd_local_decisions_compared_total")['{outcome="same"}'] > 0

    wait_until(is_compared, PATIENCE)
    assert scraped(world.mesh, "policyd_local_decisions_compared_total")['{outcome="different"}'] == 0


def test_what_was_counted_is_what_is_on_record(world: World) -> None:
    """Nothing is on record twice, and none was lost on the way."""

    def opened() -> int:
        """The connections that the sidecar counts as such."""
        page = httpx.get(world.mesh.metrics, trust_env=False, timeout=20).text
        found = re.findall(r"^istio_tcp_connections_opened_total\{([^}]*)\} (\S+)", page, re.MULTILINE)
        return sum(int(float(n)) for tags, n in found if 'proxy="echo-v1"' in tags and 'reporter="destination"' in tags)

    def recorded() -> int:
        """Those on record that came to be, at the port with an application."""
        at = [one["context"]["destination"]["port"] for one in world.decisions() if one["decision"] == "allow"]
        return at.count(7000)

    wait_until(lambda: 0 < opened() == recorded(), PATIENCE, lambda: f"{opened()} {recorded()}")
    assert len(world.known()) == len(world.decisions())
    assert not [one for one in world.mesh.records() if one.get("detail", {}).get("operation") == "local.gap"]


def test_open_connections_stay_when_policyd_takes_over_which_says_the_same(world: World) -> None:
    def both() -> list[dict[str, Any]]:
        known = world.known()
        assert (world.connect("web-v1")[0], world.connect("api-v1")[0]) == (200, 403)
        return world.arrived(known, 2)

    def plain(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = [{name: value for name, value in one.items() if name not in OWN} for one in records]
        for one in found:
            one["context"].get("source", {}).pop("port", None)
        return sorted(found, key=lambda one: str(one["reasons"]))

    local = both()
    known = world.known()
    with world.opened("web-v1") as tunnel:
        world.arrived(known)
        put(world.mesh.directory / "mesh/enforcement.yaml", ENFORCEMENT.format("central"))

        def is_central() -> bool:
            known = world.known()
            world.connect("api-v1")
            return not world.arrived(known)[-1].get("decided_by")

        wait_until(is_central, PATIENCE)
        tunnel.sendall(b"world\r\n\r\n")
        said = b"".join(iter(lambda: tunnel.recv(100), b""))

    central = both()
    assert said == b"hello world\r\n\r\n"
    assert [one.get("decided_by") for one in (*local, *central)] == ["proxy", "proxy", None, None]
    assert plain(local) == plain(central)
