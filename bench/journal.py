"""What the journal costs and what it gives: appending, sealing, proving, and a decision through one Envoy.

Law: every part is a function that gives rows, named in PARTS; each makes its own journal and removes it. Records are
Bookinfo's traffic with a request id and a trace each, all random. Through Envoy, decision processes that differ in
nothing but their journal are asked in turn, several rounds, and what was decided is counted on record.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.processes import running
from bench.proxy import CALLER, Load, authz_cluster, free_port, listener, listens, load_of, medians_of
from bench.records import decisions
from bench.table import Row, row
from policyd.audit.appender import Limits
from policyd.audit.journal import Journal
from policyd.audit.record import Entry
from policyd.audit.retention import Keep
from policyd.audit.sealer import Sealer, pack_apart
from policyd.audit.verify import How, verify
from policyd.ca.authority import Authority, authority_of, new_material
from policyd.ca.sealing import JournalTrust, SealingKeys
from policyd.server.transport import GRPC
from policyd.spiffe import SpiffeId
from policyd.xds.resources import filters
from policyd.xds.resources.model import Control

DOMAIN: Final = "cluster.local"
RECORDS: Final = 100_000
SEALED_RECORDS: Final = 400_000
DISTINCT: Final = 5_000
WRITERS: Final = 32
SYNCED: Final = 4_000
ROUNDS: Final = 3
PAIRS: Final = 9  # rounds through Envoy: what differs by a tenth is told from noise by the median of many
CONNECTIONS: Final = 32
JOURNALS: Final = ("none", "written", "fsync")


def _now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="policyd-bench-") as name:
        yield Path(name)


def traffic(count: int) -> list[Entry]:
    """So many decisions of Bookinfo, ids and times of their own."""
    dice, now = random.Random(1), datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    made = []
    for _ in range(count):
        now += timedelta(microseconds=dice.randrange(50, 700))
        book = dice.randrange(10)
        caller, service, path = dice.choice(
            [
                ("ingress", "productpage", "/productpage"),
                ("productpage", "details", f"/details/{book}"),
                ("productpage", "reviews", f"/reviews/{book}"),
                ("reviews", "ratings", f"/ratings/{book}"),
            ]
        )
        made.append(
            Entry(
                time=now,
                kind="decision",
                decision="allow",
                status=200,
                decision_id=f"{dice.getrandbits(128):032x}",
                principal=f'Workload::"spiffe://{DOMAIN}/ns/default/sa/bookinfo-{caller}"',
                action='Action::"GET"',
                resource=f'Service::"{service}.default"',
                reasons=(f"{service}-from-{caller}",),
                context={"request": {"method": "GET", "host": service, "path": path}},
                revision="5f2e" * 16,
                proxy=f"{service}-v1",
                request_id=str(UUID(int=dice.getrandbits(128))),
                trace_id=f"{dice.getrandbits(128):032x}",
                span_id=f"{dice.getrandbits(64):016x}",
                cached=dice.random() < 0.9,
                duration_us=round(dice.lognormvariate(5, 0.5)),
            )
        )
    return made


def _append(folder: Path, entries: list[Entry], count: int, **options: Any) -> tuple[Journal, float]:
    """A journal of `count` records, and the seconds that they took, one after the other."""
    journal = Journal(folder, "bench", _now, **options)
    started = time.perf_counter()
    for number in range(count):
        journal.append(entries[number % len(entries)])
    return journal, time.perf_counter() - started


# ---- appending


def appending() -> list[Row]:
    """One process, no Envoy: the rate of `written`, and how many share an fdatasync under `fsync`."""
    entries = traffic(DISTINCT)
    with _folder() as folder:
        rates, efforts = [], []
        for number in range(ROUNDS):
            worked = time.process_time()
            journal, seconds = _append(folder / str(number), entries, RECORDS)
            journal.close()
            rates.append(RECORDS / seconds)
            efforts.append((time.process_time() - worked) / RECORDS)
        each, alone = _synced(folder / "fsync", entries)
        bare = _bare_sync(folder / "bare")
    return [
        row("append, written, one after the other", max(rates), "records/s", at_least=60_000),
        row("append, written: CPU time", min(efforts) * 1e6, "us"),
        row(f"append, fsync, {WRITERS} threads, p50", statistics.median(each) * 1e3, "ms"),
        row(f"append, fsync, {WRITERS} threads", SYNCED / sum(each) * WRITERS, "records/s"),
        row("append, fsync, one thread, p50", statistics.median(alone) * 1e3, "ms"),
        row("fdatasync by itself, p50", bare * 1e3, "ms"),
    ]


def _synced(folder: Path, entries: list[Entry]) -> tuple[list[float], list[float]]:
    """Seconds of each append: of many threads at once, then of one."""
    journal = Journal(folder, "bench", _now, durability="fsync")
    each: list[float] = []

    def write(count: int, times: list[float]) -> None:
        for number in range(count):
            started = time.perf_counter()
            journal.append(entries[number])
            times.append(time.perf_counter() - started)

    threads = [threading.Thread(target=write, args=(SYNCED // WRITERS, each)) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone: list[float] = []
    write(SYNCED // WRITERS, alone)
    journal.close()
    return each, alone


def _bare_sync(file: Path) -> float:
    """What the medium takes for so many bytes, at this moment: others may use it too."""
    times = []
    with file.open("ab", buffering=0) as target:
        for _ in range(100):
            target.write(b"x" * 800)
            started = time.perf_counter()
            os.fdatasync(target.fileno())
            times.append(time.perf_counter() - started)
    return statistics.median(times)


# ---- sealing and proving


def _authority() -> Authority:
    material = new_material(DOMAIN, now=_now(), random=secrets.token_bytes)
    return authority_of(material, DOMAIN, now=_now())


def sealing() -> list[Row]:
    """What a sealed record takes, how fast records are sealed, and how fast all is proven again."""
    authority = _authority()
    keys = SealingKeys(
        lambda key: authority.sign(SpiffeId.journal(DOMAIN), key, now=_now(), random=secrets.token_bytes), _now
    )
    entries = traffic(SEALED_RECORDS // 8)
    with _folder() as folder:
        journal, _ = _append(folder / "journal", entries, SEALED_RECORDS, limits=Limits(max_bytes=20 << 20))
        journal.close()
        last = Journal(folder / "journal", "bench", _now, limits=Limits(max_age=0.0))
        last.turn()  # so that all of it is sealed
        last.close()
        lines = sum(path.stat().st_size for path in (folder / "journal").glob("bench-*.jsonl")) / SEALED_RECORDS
        sealer = Sealer(
            folder / "journal", _now, signer=keys, finish=lambda _: None, keep=Keep(10**9), max_age=1e9, pack=pack_apart
        )
        started = time.perf_counter()
        while sealer.turn():
            pass
        took = time.perf_counter() - started
        trust = JournalTrust(authority.root)
        worked = time.process_time()
        verify(folder / "journal", How(trust))
        effort = (time.process_time() - worked) / SEALED_RECORDS
        whole = _best(lambda: verify(folder / "journal", How(trust, jobs=2)))
        seals = _best(lambda: verify(folder / "journal", How(trust, seals_only=True, jobs=2)))
        verdict = verify(folder / "journal", How(trust, seals_only=True))
        sealed, size = verdict.chains[0].sealed, verdict.sealed_bytes
    if verdict.problems or sealed != SEALED_RECORDS:
        raise RuntimeError(f"the journal is not whole: {verdict}")
    return [
        row("an open record", lines, "bytes"),
        row("a sealed record", size / sealed, "bytes", at_most=80),
        row("seal", sealed / took, "records/s"),
        row("verify, chains hashed anew, two processes", sealed / whole, "records/s", at_least=100_000),
        row("verify, chains hashed anew: CPU time", effort * 1e6, "us/record"),
        row("verify, seals alone, of sealed files", size / seals / 1e6, "MB/s"),
        row("verify, seals alone, of the lines in them", sealed * lines / seals / 1e6, "MB/s", at_least=500),
    ]


def _best(call: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


# ---- through an Envoy


def through_envoy() -> list[Row]:
    """Throughput and latency with a journal and without, at the same decisions; needs wrk."""
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk, which is not here")
    with _folder() as work, ExitStack() as stack:
        _write_identities(work)
        ports = {journal: free_port() for journal in JOURNALS}
        servers, asked = {}, dict.fromkeys(JOURNALS, 0)
        for journal, port in ports.items():
            program = [sys.executable, "-m", "bench.journal_server", str(work), str(port), journal]
            command = ["env", *(f"{name}={value}" for name, value in GRPC.items()), *program]
            ready = lambda port=port: listens(port)  # noqa: E731
            servers[journal] = stack.enter_context(running(command, work / f"{journal}.log", ready)).pid
        envoy, listeners = stack.enter_context(_envoy(work, ports))
        measured: dict[str, list[Load]] = {journal: [] for journal in JOURNALS}
        for number in range(PAIRS + 1):
            for journal in JOURNALS:
                load = load_of(listeners[journal], CONNECTIONS, envoy, [servers[journal]])
                measured[journal] += [load] if number else []  # the first round warms up
                asked[journal] += load.requests
        bare = _bare_sync(work / "bare")
        stack.close()
        kept = {journal: decisions(work / f"journal-{journal}") for journal in JOURNALS[1:]}
    medians = {journal: medians_of(loads) for journal, loads in measured.items()}
    kept_up = [
        kept.per_second / bare.per_second for bare, kept in zip(measured["none"], measured["written"], strict=True)
    ]
    added = [later.p50 - kept.p50 for kept, later in zip(measured["written"], measured["fsync"], strict=True)]
    return [
        *(row(f"Envoy, journal {name}: throughput", one.per_second, "requests/s") for name, one in medians.items()),
        *(row(f"Envoy, journal {name}: p50", one.p50, "ms") for name, one in medians.items()),
        *(row(f"Envoy, journal {n}: CPU of policyd", one.policyd_cpu, "us/request") for n, one in medians.items()),
        row("throughput, written / none", statistics.median(kept_up), "ratio", at_least=0.9),
        row("p50 added by fsync to written, 32 connections", statistics.median(added), "ms", at_most=1),
        row("fdatasync by itself at that time, p50", bare * 1e3, "ms"),
        # wrk cuts its last requests off when its time is over: those are decided and on record, but not counted by it
        *(row(f"{name}: logged / decided", kept[name] / asked[name], "ratio", at_least=1.0) for name in kept),
    ]


def _write_identities(work: Path) -> None:
    """Certificates of one authority: of the server, and of the Envoy that asks."""
    authority = _authority()
    root = authority.root.public_bytes(Encoding.PEM)
    named = {"server": (SpiffeId.server(DOMAIN), ("policyd",)), "certificate": (SpiffeId.parse(CALLER), ())}
    for name, (identity, dns_names) in named.items():
        key = ec.generate_private_key(ec.SECP256R1())
        svid = authority.sign(identity, key.public_key(), now=_now(), random=secrets.token_bytes, dns_names=dns_names)
        pem = svid.leaf.public_bytes(Encoding.PEM) + svid.intermediate.public_bytes(Encoding.PEM)
        (work / f"{name}.pem").write_bytes(pem)
        file = "server.key" if name == "server" else "key.pem"
        (work / file).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (work / "roots.pem").write_bytes(root)


@contextmanager
def _envoy(work: Path, ports: dict[str, int]) -> Iterator[tuple[int, dict[str, int]]]:
    """One Envoy with a listener for each journal, whose filter asks the process that has it."""
    from policyd.envoy_api import envoy_binary

    listeners, clusters, at = [], [], {}
    for journal, port in ports.items():
        control = Control("127.0.0.1", (port,), SpiffeId.server(DOMAIN))
        cluster = authz_cluster(control, work)
        text = json.dumps(filters.authorization(control)).replace(cluster["name"], f"authz-{journal}")
        cluster["name"] = f"authz-{journal}"
        cluster["load_assignment"]["cluster_name"] = cluster["name"]
        clusters.append(cluster)
        at[journal] = free_port()
        listeners.append(listener(at[journal], [json.loads(text)], {}))
    resources = {"clusters": clusters, "listeners": listeners}
    config = work / "envoy.json"
    config.write_text(json.dumps({"node": {"id": "bench", "cluster": "bench"}, "static_resources": resources}))
    command = [str(envoy_binary(None)), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    with running(command, work / "envoy.log", lambda: all(map(listens, at.values()))) as process:
        yield process.pid, at


PARTS: Final = (appending, sealing, through_envoy)


def run() -> list[Row]:
    """All parts, one after the other."""
    return [one for part in PARTS for one in part()]
