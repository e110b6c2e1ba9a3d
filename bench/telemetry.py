"""What the mesh's metrics cost: the same requests with and without Envoy counting them, alone and asking policyd.

The counts, the note of who speaks and its removal are a sidecar's own, with all tags; nothing is scraped meanwhile.
"""

from __future__ import annotations

from bench.proxy import CALLER, CONNECTIONS, Variants, measure
from bench.table import Row, row
from policyd.mesh.model import Instance, Served
from policyd.spiffe import SpiffeId
from policyd.xds.resources import counting, filters
from policyd.xds.resources.model import Control

COUNTED = Instance("details-v1", SpiffeId.parse(CALLER), "sidecar", "details.default", labels={"version": "v1"})


def variants(control: Control) -> Variants:
    """Each with and without."""
    asked = [filters.authorization(control)]
    fields = {
        "access_log": counting.inbound(COUNTED, Served(80, 80), encrypted=True),
        "access_log_options": counting.TUNNELS,
    }
    heard = [counting.hears_who()]
    return {
        "no filter": ([], {}),
        "no filter, counted": (heard, fields),
        "policyd": (asked, {}),
        "policyd, counted": ([*heard, *asked], fields),
    }


def run() -> list[Row]:
    """Measure and compare; needs wrk."""
    medians = measure(variants).medians
    plain, counted = medians["no filter", CONNECTIONS], medians["no filter, counted", CONNECTIONS]
    alone, beside = medians["policyd", CONNECTIONS], medians["policyd, counted", CONNECTIONS]
    return [
        row("CPU of Envoy for what is not counted", plain.envoy_cpu, "us/request"),
        row("CPU of Envoy for what is counted", counted.envoy_cpu, "us/request"),
        row("what counting costs", counted.envoy_cpu - plain.envoy_cpu, "us/request", at_most=10),
        row("throughput, decided", alone.per_second, "requests/s"),
        row("throughput, decided and counted", beside.per_second, "requests/s"),
        row("throughput lost by counting", 1 - beside.per_second / alone.per_second, "share", at_most=0.06),
    ]
