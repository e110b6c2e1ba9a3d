"""What capture costs: the same requests captured and by the application's own proxy, in turns; and 10,000 names.

The machines are those of the end-to-end test, networks of their own; what is asked for is refused at the other end, so
that no application is measured. Needs root and nftables.
"""

from __future__ import annotations

import base64
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import dns.message

from bench.table import Row, row
from policyd.mesh.virtual import virtual_addresses
from tests.e2e.machines import Captured, machines
from tests.e2e.wire import policyd
from tests.ports import free_port

NAMES: Final = 10_000
QUESTIONS: Final = 5_000
ADDED: Final = 0.1  # ms, the most that capture may add
RESOLVED: Final = 0.5  # ms
_CLIENT: Final = """
import http.client, json, socket, statistics, sys, time
def connected(host, port):
    made = http.client.HTTPConnection(host, port)
    made.connect()
    made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
def one(there, url, headers):
    begin = time.perf_counter()
    there.request("GET", url, headers={"host": "api:8080", **headers})
    reply = there.getresponse()
    reply.read()
    assert reply.status == 403, reply.status
    return (time.perf_counter() - begin) * 1000
captured, explicit = connected(sys.argv[1], 8080), connected("127.0.0.1", 15001)
secret = {"proxy-authorization": "Basic " + sys.argv[2]}
times = [], []
for _ in range(40):
    times[0].extend(one(captured, "/secret", {}) for _ in range(25))
    times[1].extend(one(explicit, "http://api:8080/secret", secret) for _ in range(25))
print(json.dumps([statistics.median(each) for each in times]))
"""
_RESOLVER: Final = """
import asyncio, sys
from policyd.mesh.virtual import virtual_addresses
from proxy.dns.server import Resolver
from proxy.dns.zone import zone
found = virtual_addresses(f"service-{number}.default" for number in range(int(sys.argv[2])))
names = [(name, True, [one.v4.packed, one.v6.packed]) for name, one in found.items()]
async def main():
    await Resolver(lambda *_, **__: None, port=int(sys.argv[1])).serve(zone("x", "default", (".svc",), names))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


def run() -> Iterator[Row]:
    """The figures."""
    with tempfile.TemporaryDirectory() as work, machines(Path(work)) as mesh:
        captured, explicit = _paths(mesh)
    yield row("explicit: p50", explicit, "ms")
    yield row("captured: p50", captured, "ms")
    yield row("capture adds: p50", captured - explicit, "ms", at_most=ADDED)
    yield row(f"a name of {NAMES:,}: p50", _resolved(), "ms", at_most=RESOLVED)


def _paths(mesh: Captured) -> tuple[float, float]:
    """Medians of the same requests, captured and by the proxy, in turns over one connection each."""
    instances = json.loads(policyd(mesh.directory, "status", "--json").stdout)["instances"]
    url = next(one["proxy_url"] for one in instances if one["name"] == "web-1")
    secret = base64.b64encode(url.removeprefix("http://").rpartition("@")[0].encode()).decode()
    address = str(virtual_addresses(["api.default"])["api.default"].v4)
    captured, explicit = json.loads(mesh.web.run(sys.executable, "-c", _CLIENT, address, secret))
    return captured, explicit


def _resolved() -> float:
    """The median of questions for names all over, one after the other."""
    port, times = free_port(), []
    command = [sys.executable, "-c", _RESOLVER, str(port), str(NAMES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect(("127.0.0.1", port))
            asking.settimeout(5)
            for number in range(QUESTIONS):
                packet = dns.message.make_query(f"service-{number * 7919 % NAMES}.default", "A").to_wire()
                begin = time.perf_counter()
                asking.send(packet)
                asking.recv(4096)
                times.append((time.perf_counter() - begin) * 1000)
        process.terminate()
    return statistics.median(times)
