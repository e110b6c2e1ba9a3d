"""Bookinfo's resources, whole: as golden files, and as the real Envoy accepts them in its strictest mode."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from policyd import envoy_api
from policyd.envoy_api import CLUSTER, LISTENER, ROUTE, TYPE_PREFIX
from policyd.xds.resources.build import build_snapshots
from policyd.xds.resources.tls import SDS_CLUSTER
from policyd.xds.snapshot import Resource, Snapshot, check_snapshot, kind
from tests.golden import check_json
from tests.xds.resources.folders import CONTROL, bookinfo, mesh_of


def shown(resource: Resource) -> dict[str, Any]:
    message = envoy_api.message(resource.type_url.removeprefix(TYPE_PREFIX)).FromString(resource.body)
    return envoy_api.to_dict(message)


def whole(snapshot: Snapshot) -> dict[str, Any]:
    return {
        kind(type_url): {name: shown(resource) for name, resource in sorted(resources.items())}
        for type_url, resources in sorted(snapshot.resources.items())
    }


@pytest.mark.parametrize("instance", ["reviews-v1", "ingress"])
def test_bookinfo_is_sent_as_the_golden_file_says(root: Path, instance: str, request: pytest.FixtureRequest) -> None:
    made = whole(bookinfo(root)[instance])

    check_json(f"xds/{instance}.json", made, update=request.config.getoption("--update-golden"))


def test_no_snapshot_has_a_reference_to_nothing(root: Path) -> None:
    for snapshot in bookinfo(root).values():
        check_snapshot(snapshot, static_clusters={SDS_CLUSTER})


def test_the_same_mesh_makes_the_same_versions(root: Path) -> None:
    assert {name: one.version for name, one in bookinfo(root).items()} == {
        name: one.version for name, one in bookinfo(root).items()
    }


def test_proxies_of_a_namespace_share_what_is_equal(root: Path) -> None:
    snapshots = bookinfo(root)
    one, other = snapshots["reviews-v1"].of(ROUTE)["outbound"], snapshots["ratings-v1"].of(ROUTE)["outbound"]

    assert one is other


def test_an_instance_more_changes_only_its_endpoints() -> None:
    before = "workloads:\n  a-v1: {service: a, port: 80}\n  b-v1: {service: b, port: 80}\n"
    more = before + "  a-v2: {service: a, port: 80}\n"
    old = build_snapshots(mesh_of({"workloads.yaml": before}), CONTROL)["b-v1"]
    new = build_snapshots(mesh_of({"workloads.yaml": more}), CONTROL)["b-v1"]

    changed = {
        (kind(type_url), name)
        for type_url, resources in new.resources.items()
        for name, resource in resources.items()
        if old.of(type_url)[name].version != resource.version
    }
    assert changed == {("endpoints", "outbound|80||a.default")}


def static(snapshot: Snapshot, work: Path) -> Path:
    """A bootstrap that holds the snapshot's clusters and listeners, to be validated."""
    sds = {
        "name": SDS_CLUSTER,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": SDS_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": "/nowhere.sock"}}}}]}],
        },
    }
    resources = {
        "clusters": [*(shown(one) for one in snapshot.of(CLUSTER).values()), sds],
        "listeners": [shown(one) for one in snapshot.of(LISTENER).values()],
    }
    services = [{"envoy_grpc": {"cluster_name": SDS_CLUSTER}}]
    ads = {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": services}
    file = work / "envoy.json"
    file.write_text(
        json.dumps(
            {
                "node": {"id": "n", "cluster": "c"},
                "static_resources": resources,
                "dynamic_resources": {"ads_config": ads},
            }
        )
    )
    return file


@pytest.mark.e2e
@pytest.mark.parametrize("instance", ["reviews-v1", "ingress"])
def test_the_real_envoy_accepts_it(root: Path, tmp_path: Path, instance: str) -> None:
    file = static(bookinfo(root)[instance], tmp_path)
    binary = str(envoy_api.envoy_binary(None))

    done = subprocess.run(
        [binary, "--mode", "validate", "--reject-unknown-dynamic-fields", "-c", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr[-2000:]
