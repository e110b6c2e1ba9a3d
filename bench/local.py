"""What deciding in the proxy would cost: one Envoy without a filter, with rules by hand, with the compiled filter, and
asking policyd; the same of who has a token (bench.local_users); and what compiling costs.

Every variant counts requests as a sidecar does; where Envoy decides, by either filter, it tells each decision as to the
agent beside it. The rule is Bookinfo's at its gateway, as a sidecar in plain text has it; the filter by hand has that
rule alone, the compiled one also refuses what policyd refuses before any rule. What becomes of what is told is measured
on a real mesh (bench.local_records), for LOCAL_SECONDS (30).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from bench import local_records, local_users
from bench.engine_sets import policies_in_files, traffic_schema
from bench.neighbours import Pair, added, compared, throughput, whole
from bench.processes import ROOT, running
from bench.proxy import Fields, Variants, measure, rbac_by_hand, rig
from bench.table import Row, row
from bench.telemetry import COUNTED
from policyd.authz.ruling import make_ruling
from policyd.cedar.policies import Checked, load_policies
from policyd.decision_line import OWN_PEER, PIPE
from policyd.local import envoy
from policyd.local.compile import Compiler
from policyd.local.replies import identified
from policyd.local.told import size
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh, Served
from policyd.mesh.placement import assumed
from policyd.xds.resources import counting, deciding, filters
from policyd.xds.resources.model import Control, Switch

POLICIES, SERVICES, GROUPS = 10_000, 1_000, 50
RIGS: Final = 7  # Envoys, each with rounds of its own
ROUNDS: Final = 4  # of the two that are nearly as fast
OTHERS: Final = 2  # of those that are not
LISTENER: Final = "ingress-v1/inbound/plaintext"
INGRESS = (
    "workloads: {ingress-v1: {service: ingress, port: 80}}\ndefaults: {namespace: default, serviceAccount: ingress}\n"
)
PLAINTEXT = (
    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
    "metadata: {name: default, namespace: istio-system}\nspec: {mtls: {mode: PERMISSIVE}}\n"
)
FILES: Final = {"workloads.yaml": INGRESS, "mesh/peers.yaml": PLAINTEXT}


def _mesh(texts: dict[str, str]) -> Mesh:
    declaration = declare(texts)
    return build(declaration, "cluster.local", assumed(declaration))


def _compiled_filter() -> dict[str, object]:
    mesh = _mesh(FILES)
    schema = traffic_schema()
    text = (ROOT / "examples/bookinfo/policies/ingress.cedar").read_text(encoding="utf-8")
    ruling = make_ruling(mesh, load_policies({"ingress.cedar": text}, schema), schema)
    compiled = Compiler(ruling).compile(mesh.listeners[LISTENER])
    return {"name": envoy.FILTER, "typed_config": envoy.rbac(compiled)}


def variants(pipe: Path, control: Control) -> Variants:
    """Each counts what a sidecar counts, and those that decide write of it into the pipe."""
    here = _told(pipe)
    decided: dict[str, tuple[list[dict[str, object]], Fields]] = {
        "no filter": ([], _fields()),
        "by hand": ([identified(), rbac_by_hand()], here),
        "compiled": ([identified(), _compiled_filter()], here),
        "policyd": ([filters.authorization(control)], _fields()),
    }
    return {name: ([counting.hears_who(), *chain], fields) for name, (chain, fields) in decided.items()}


def _fields(*, either: bool = False) -> Fields:
    counted = counting.inbound(COUNTED, Served(80, 80), encrypted=True, either=either)
    return {"access_log": counted, "access_log_options": counting.TUNNELS}


def _told(pipe: Path) -> Fields:
    """What a sidecar that may decide counts, and what it tells."""
    told = deciding.told(LISTENER, Switch(identified(), (), (), 0.0), OWN_PEER)
    told["typed_config"]["path"] = str(pipe)
    # what refused callers are told is left out: here each answer is Envoy's own, and would look whether it is a refusal
    here = _fields(either=True)
    return {**here, "access_log": [*here["access_log"], told]}


def run() -> list[Row]:
    """Measure and compare; needs wrk."""
    return [*_compiling(), *_deciding(), *local_records.run()]


def _deciding() -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="policyd-bench-") as folder:
        pipe = Path(folder) / PIPE
        sink = [sys.executable, "-m", "bench.local_sink", str(pipe), str(Path(folder) / "spool")]
        with running(sink, Path(folder) / "sink.log", pipe.exists):
            medians = measure(partial(variants, pipe)).medians
            by_hand, asked, alone = zip(*(_compared(pipe) for _ in range(RIGS)), strict=True)
            of_users = list(local_users.run(LISTENER, FILES, _fields(), _told(pipe)))
    for (variant, connections), load in medians.items():
        name = f"{variant}, {connections} connection{'s' if connections > 1 else ''}"
        yield row(f"{name}: throughput", load.per_second, "requests/s")
        yield row(f"{name}: p50", load.p50, "ms")
        yield row(f"{name}: CPU of Envoy", load.envoy_cpu, "us/request")
    yield from throughput("throughput, compiled / by hand", by_hand, at_least=0.95)
    yield from throughput("throughput, compiled / policyd", asked, at_least=5)
    yield from added("p50 added at one connection", alone, at_most=0.05)
    yield from of_users


def _compared(pipe: Path) -> tuple[Pair, Pair, Pair]:
    """At one Envoy: by hand, policyd and, at one connection, no filter, each beside the compiled filter."""
    with rig(partial(variants, pipe)) as made:
        by_hand = [compared(made, ("by hand", "compiled"), number % 2) for number in range(ROUNDS)]
        asked = [compared(made, ("policyd", "compiled"), number % 2) for number in range(OTHERS)]
        alone = [compared(made, ("no filter", "compiled"), number % 2, 1) for number in range(OTHERS)]
    return whole(by_hand), whole(asked), whole(alone)


def _large() -> Mesh:
    services = "".join(f"  s{number}-v1: {{service: s{number}, port: 80}}\n" for number in range(SERVICES))
    members = (f"spiffe://cluster.local/ns/shop/sa/s{number}" for number in range(GROUPS))
    groups = "".join(f"  g{number}: {{workloads: [{member}]}}\n" for number, member in enumerate(members))
    workloads = f"workloads:\n{services}defaults: {{namespace: shop, serviceAccount: '{{service}}'}}\n"
    return _mesh({"workloads.yaml": workloads, "groups.yaml": f"groups:\n{groups}"})


def _compiling() -> Iterator[Row]:
    mesh, schema, checked = _large(), traffic_schema(), Checked()
    texts = policies_in_files(POLICIES)
    ruling = make_ruling(mesh, load_policies(texts, schema, checked), schema)
    listeners = [one for one in mesh.listeners.values() if one.side == "inbound"]
    started, worked = time.perf_counter(), time.process_time()
    compiler = Compiler(ruling)
    before = [compiler.compile(one) for one in listeners]
    sizes = [size(one) for one in before]  # in Envoy's words
    yield row(f"{POLICIES:,} policies for {SERVICES:,} services", time.perf_counter() - started, "s", at_most=5)
    yield row("the same, CPU", time.process_time() - worked, "s")
    texts["s7.cedar"] = texts["s7.cedar"].replace("/api/", "/v2/")
    changed = make_ruling(mesh, load_policies(texts, schema, checked), schema)
    started = time.perf_counter()
    after = Compiler(changed, compiler)
    again = [after.compile(one) for one in listeners]
    yield row("policies of one service changed", time.perf_counter() - started, "s")
    touched = sum(new.permits is not old.permits for new, old in zip(again, before, strict=True))
    yield row("listeners compiled again", touched, "listeners", at_most=1)
    yield row("filter of a workload, median", statistics.median(sizes), "bytes")
    yield row("filter of a workload, largest", max(sizes), "bytes")
