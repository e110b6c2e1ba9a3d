"""What a decision costs on the wire: one Envoy worker without a filter, with native RBAC, and asking policyd.

The generator speaks plain HTTP to the same kind of listener in all three variants; the decisions are Bookinfo's own
(the world at the gateway), asked over mTLS and written to the journal. All variants run in turn, several rounds.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from bench.processes import PROGRAM, answer, bookinfo, cpu_seconds, running
from bench.records import decisions
from bench.table import Row, row
from policyd import signals
from policyd.names import AUTHZ_FILTER
from policyd.spiffe import SpiffeId
from policyd.xds.agreed import XDS_CLUSTER
from policyd.xds.resources import clusters, filters
from policyd.xds.resources.model import AUTHZ_CLUSTER, Control, Tracing
from proxy.bootstrap import RUNTIME

SECONDS = 4
ROUNDS = 3
CONNECTIONS = 32
TRACED_CLUSTER = f"{AUTHZ_CLUSTER}-traced"  # the way to policyd that proxies have which trace
Fields = dict[str, Any]
PEER = f"{signals.PEER_HEADER}: {signals.Party('web-v1', 'default', 'web', 'v1', 'web.default')}"  # of a peer
CALLER = "spiffe://cluster.local/ns/default/sa/bookinfo-ingress"


class World(NamedTuple):
    """What policyd knows and is asked: the folder of a mesh, who asks about which listener, and what requests bring."""

    folder: Callable[[], AbstractContextManager[Path]]
    caller: str
    listener: str
    headers: tuple[str, ...] = (PEER,)


BOOKINFO = World(bookinfo, CALLER, "ingress/gateway/8080")


class Load(NamedTuple):
    """What the generator measured; latencies in milliseconds, CPU in microseconds a request."""

    per_second: float
    p50: float
    p99: float
    envoy_cpu: float
    policyd_cpu: float
    requests: int


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def rbac_by_hand() -> dict[str, Any]:
    """The rule that Bookinfo's gateway has: anyone, the schema's methods."""
    methods = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
    permissions = [{"header": {"name": ":method", "string_match": {"exact": method}}} for method in methods]
    policy = {"permissions": [{"or_rules": {"rules": permissions}}], "principals": [{"any": True}]}
    rules = {"action": "ALLOW", "policies": {"world-to-ingress": policy}}
    config = {"@type": f"{filters.HTTP}.rbac.v3.RBAC", "rules": rules}
    return {"name": "envoy.filters.http.rbac", "typed_config": config}


def listener(port: int, chain: list[dict[str, Any]], fields: Fields, asked: str = BOOKINFO.listener) -> dict[str, Any]:
    """A port of its own for each variant; `fields` are others of its connection manager, its routes among them."""
    route = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": "ok"}},
        "typed_per_filter_config": filters.asked_for(asked),
    }
    if not any(item["name"] == AUTHZ_FILTER for item in chain):
        del route["typed_per_filter_config"]
    table = {"name": "all", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}
    routes = {"route_config": fields.get("route_config", table)}
    fields = {name: value for name, value in fields.items() if name not in routes}
    return {
        "name": f"port-{port}",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [filters.manager(f"port-{port}", chain, routes, **fields)]}],
    }


def authz_cluster(control: Control, identity: Path) -> dict[str, Any]:
    """The real cluster, its certificate from files instead of the agent."""
    return _with_files(clusters.authorization(control), identity)


def xds_cluster(control: Control, address: str, identity: Path) -> dict[str, Any]:
    """The way to the control process, which Envoys have from their bootstrap."""
    host, _, port = address.rpartition(":")
    there = replace(control, authz_host=host, authz_ports=(int(port),))
    cluster = _with_files(clusters.authorization(there), identity)
    cluster["load_assignment"]["cluster_name"] = XDS_CLUSTER
    return {**cluster, "name": XDS_CLUSTER}


def _with_files(cluster: dict[str, Any], identity: Path) -> dict[str, Any]:
    context = cluster["transport_socket"]["typed_config"]["common_tls_context"]
    sans = context.pop("combined_validation_context")["default_validation_context"]
    del context["tls_certificate_sds_secret_configs"]
    context["tls_certificates"] = [
        {
            "certificate_chain": {"filename": str(identity / "certificate.pem")},
            "private_key": {"filename": str(identity / "key.pem")},
        }
    ]
    context["validation_context"] = {"trusted_ca": {"filename": str(identity / "roots.pem")}, **sans}
    return cluster


Variants = dict[str, tuple[list[dict[str, Any]], Fields]]


def variants(control: Control) -> Variants:
    """What is compared here: filters, and other fields of the connection manager."""
    return {
        "no filter": ([], {}),
        "native RBAC": ([rbac_by_hand()], {}),
        "policyd": ([filters.authorization(control)], {}),
    }


@contextmanager
def _envoy(
    work: Path,
    control: Control,
    xds: str,
    identity: Path,
    compared: Variants,
    asked: str,
) -> Iterator[tuple[int, dict[str, int]]]:
    from policyd.envoy_api import envoy_binary

    ports = {variant: free_port() for variant in compared}
    listeners = [listener(ports[variant], *made, asked) for variant, made in compared.items()]
    traced = {**authz_cluster(replace(control, tracing=Tracing("", 1.0)), identity), "name": TRACED_CLUSTER}
    ways = [authz_cluster(control, identity), traced, xds_cluster(control, xds, identity)]
    resources = {"clusters": ways, "listeners": listeners}
    config = work / "envoy.json"
    runtime = {"layers": [{"name": "bench", "static_layer": RUNTIME}]}
    node = {"id": "bench", "cluster": "bench"}
    config.write_text(json.dumps({"node": node, "static_resources": resources, "layered_runtime": runtime}))
    command = [str(envoy_binary(None)), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]

    def ready() -> bool:
        return all(listens(port) for port in ports.values())

    with running(command, work / "envoy.log", ready) as process:
        yield process.pid, ports


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def load_of(
    port: int,
    connections: int,
    envoy: int,
    policyd: list[int],
    seconds: int = SECONDS,
    headers: Sequence[str] = BOOKINFO.headers,
) -> Load:
    before = cpu_seconds(envoy), sum(map(cpu_seconds, policyd))
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
        *(part for one in headers for part in ("-H", one)),
        f"http://127.0.0.1:{port}/productpage",
    ]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = cpu_seconds(envoy), sum(map(cpu_seconds, policyd))
    if "Non-2xx" in text:
        raise RuntimeError(f"requests failed:\n{text}")
    requests = int(re.search(r"(\d+) requests in", text)[1])  # type: ignore[index]
    per_second = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])  # type: ignore[index]
    quantiles = dict(re.findall(r"(\d+)%\s+([\d.]+[mu]?s)", text))
    cost = [(late - early) / requests * 1e6 for early, late in zip(before, after, strict=True)]
    return Load(per_second, _milliseconds(quantiles["50"]), _milliseconds(quantiles["99"]), *cost, requests)


def medians_of(loads: list[Load]) -> Load:
    return Load(*(statistics.median(values) for values in zip(*loads, strict=True)))  # type: ignore[arg-type]


class Measured(NamedTuple):
    """Medians by variant and connections; how many requests policyd was asked about, and how many are on record."""

    medians: dict[tuple[str, int], Load]
    asked: int
    recorded: int


class Rig(NamedTuple):
    """What is loaded: the mesh's folder, process ids, the port of each variant, and what requests bring."""

    directory: Path
    envoy: int
    policyd: list[int]
    ports: dict[str, int]
    headers: tuple[str, ...] = BOOKINFO.headers

    def load(self, variant: str, connections: int = CONNECTIONS, seconds: int = SECONDS) -> Load:
        """Load a variant for some seconds."""
        return load_of(self.ports[variant], connections, self.envoy, self.policyd, seconds, self.headers)


def run() -> list[Row]:
    """Measure and compare; needs wrk."""
    return _rows(*measure(variants))


@contextmanager
def rig(compared: Callable[[Control], Variants], world: World = BOOKINFO) -> Iterator[Rig]:
    """policyd and one Envoy with a port for each variant; needs wrk."""
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk, which is not here")
    with world.folder() as directory:
        work = directory.parent
        command = [PROGRAM, "serve", "--dir", str(directory)]
        with running(
            command, work / "serve.log", lambda: (answer(directory, "status") or {}).get("ready", False)
        ) as server:
            status = answer(directory, "status")
            identity = work / "identity"
            subprocess.run(
                [PROGRAM, "ca", "issue", world.caller, "--out", str(identity), "--dir", str(directory)], check=True
            )
            deciders = status["deciders"]
            ports = tuple(int(one["address"].rpartition(":")[2]) for one in deciders)
            control = Control("127.0.0.1", ports, SpiffeId.server(status["trust_domain"]))
            policyd = [server.pid, *(one["pid"] for one in deciders)]
            made = compared(control)
            ways = (work, control, status["xds_address"], identity, made, world.listener)
            with _envoy(*ways) as (envoy, listeners):
                yield Rig(directory, envoy, policyd, listeners, world.headers)


def measure(compared: Callable[[Control], Variants]) -> Measured:
    """Load each variant in turn, several rounds."""
    measured: dict[tuple[str, int], list[Load]] = {}
    with rig(compared) as made:
        for _ in range(ROUNDS):
            for connections in (1, CONNECTIONS):
                for variant in made.ports:
                    measured.setdefault((variant, connections), []).append(made.load(variant, connections))
        asked = sum(
            load.requests for (variant, _), loads in measured.items() if variant.startswith("policyd") for load in loads
        )
        recorded = decisions(made.directory / ".policyd" / "journal")
    return Measured({key: medians_of(loads) for key, loads in measured.items()}, asked, recorded)


def _rows(medians: dict[tuple[str, int], Load], asked: int, recorded: int) -> list[Row]:
    rows = []
    for (variant, connections), load in medians.items():
        name = f"{variant}, {connections} connection{'s' if connections > 1 else ''}"
        rows += [
            row(f"{name}: throughput", load.per_second, "requests/s"),
            row(f"{name}: p50", load.p50, "ms"),
            row(f"{name}: p99", load.p99, "ms"),
            row(f"{name}: CPU of Envoy", load.envoy_cpu, "us/request"),
        ]
        if variant == "policyd":
            rows.append(row(f"{name}: CPU of policyd", load.policyd_cpu, "us/request"))
    ours, native = medians["policyd", CONNECTIONS], medians["native RBAC", CONNECTIONS]
    added = medians["policyd", 1].p50 - medians["no filter", 1].p50
    rows.append(row("p50 added at one connection", added, "ms", at_most=0.8))
    rows.append(row("throughput / native RBAC", ours.per_second / native.per_second, "ratio", at_least=0.09))
    # wrk cuts its last requests off when its time is over: those are decided and on record, but not counted by it
    rows.append(row("decisions on record / requests answered", recorded / asked, "ratio", at_least=1.0))
    return rows
