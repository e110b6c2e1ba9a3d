"""Several ports of a workload: to each its own listener, its own cluster and, for callers, its own endpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER
from policyd.xds.resources.build import build_snapshots
from policyd.xds.snapshot import Snapshot
from tests.golden import check_json
from tests.mesh.test_ports import FURTHER, PEERS, RULE, SERVICE, WORKLOADS
from tests.xds.resources.folders import CONTROL, mesh_of
from tests.xds.resources.test_build import accepted, shown, whole

FILES = {
    "workloads.yaml": WORKLOADS,
    "mesh/service.yaml": SERVICE,
    "mesh/further.yaml": FURTHER,
    "mesh/peers.yaml": PEERS,
    "mesh/rule.yaml": RULE,
}


def snapshot(instance: str) -> Snapshot:
    return build_snapshots(mesh_of(FILES), CONTROL)[instance]


def test_a_sidecar_of_several_ports_is_sent_as_the_golden_file_says(request: pytest.FixtureRequest) -> None:
    made = whole(snapshot("api-v1"))
    inbound = {name: one for name, one in made["clusters"].items() if name.startswith("inbound|")}
    listeners = {name: one for name, one in made["listeners"].items() if "/inbound" in name}

    check_json(
        "xds/ports.json",
        {"clusters": inbound, "endpoints": made["endpoints"], "listeners": listeners},
        update=request.config.getoption("--update-golden"),
    )


def test_every_service_of_a_port_leads_to_the_same_places() -> None:
    web = snapshot("web-v1")
    endpoints = {name: shown(one)["endpoints"] for name, one in web.of(ENDPOINT).items()}

    assert endpoints["outbound|9000||api.default"] == endpoints["outbound|1||admin.default"]
    assert endpoints["outbound|9000||api.default"] != endpoints["outbound|80||api.default"]


def test_a_rule_of_a_port_is_for_that_port_alone() -> None:
    clusters = snapshot("web-v1").of(CLUSTER)

    assert "transport_socket" in shown(clusters["outbound|80||api.default"])
    assert "transport_socket" not in shown(clusters["outbound|9000||api.default"])


def test_each_port_asks_for_its_own_listener() -> None:
    listeners = snapshot("api-v1").of(LISTENER)

    assert {name for name in listeners if "/inbound" in name} == {"api-v1/inbound", "api-v1/inbound/9000"}


@pytest.mark.e2e
def test_the_real_envoy_accepts_it(tmp_path: Path) -> None:
    accepted(snapshot("api-v1"), tmp_path)
