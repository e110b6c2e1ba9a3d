"""What commands say of a running mesh: its own Envoys are asked, by way of their agent."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import PROGRAM, RunningMesh, copy_of_bookinfo, down, up
from tests.e2e.terminal import wait_until
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("commands"), pytest.mark.timeout(120)]

KINDS = ("listeners", "routes", "clusters", "endpoints", "secrets")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[RunningMesh]:
    """Bookinfo with subsets."""
    folder = copy_of_bookinfo(tmp_path_factory.mktemp("commands") / "bookinfo", root)
    shutil.copy(folder / "tasks" / "subsets.yaml", folder / "mesh")
    try:
        yield up(folder)
    finally:
        down(folder)


def said(mesh: RunningMesh, *words: str) -> subprocess.CompletedProcess[str]:
    """What a command says, whatever its exit code."""
    return subprocess.run([PROGRAM, *words, "--dir", str(mesh.directory)], capture_output=True, text=True, timeout=60)


def holds(mesh: RunningMesh, kind: str, instance: str) -> Any:
    return mesh.says("proxy", "config", kind, instance)


def test_an_envoy_says_what_it_holds(mesh: RunningMesh) -> None:
    names = {kind: json.dumps(holds(mesh, kind, "productpage-v1")) for kind in KINDS}

    assert "productpage-v1/inbound" in names["listeners"]
    assert "reviews.default:9080" in names["routes"]
    assert "outbound|9080|v2|reviews.default" in names["clusters"]
    assert str(mesh.place("reviews-v2")["inbound_port"]) in names["endpoints"]
    assert "spiffe://cluster.local/ns/default/sa/bookinfo-productpage" in names["secrets"]


def test_no_key_and_no_password_is_shown(mesh: RunningMesh) -> None:
    everything = "".join(
        json.dumps(holds(mesh, kind, instance)) for kind in KINDS for instance in ("productpage-v1", "ingress")
    )

    assert "PRIVATE" not in everything
    assert "{SHA}" not in everything
    secret = re.search(r":([^:@]+)@", mesh.place("productpage-v1")["proxy_url"])
    assert secret is not None
    assert secret[1] not in everything


def test_every_proxy_holds_what_it_was_sent_also_after_a_change(mesh: RunningMesh) -> None:
    rules = mesh.directory / "tasks" / "reviews-half-v3.yaml"
    shutil.copy(rules, mesh.directory / "mesh")
    wait_until(lambda: shares(mesh) == [50, 50], 45)

    for instance in ("productpage-v1", "reviews-v1", "ingress"):  # each takes the change at its own time
        wait_until(lambda instance=instance: said(mesh, "proxy", "diff", instance).returncode == 0, 45)
    (mesh.directory / "mesh" / rules.name).unlink()
    wait_until(lambda: shares(mesh) == [], 45)


ANYWHERE = """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: details}
spec:
  workloadSelector: {labels: {app: details}}
  ingress: [{port: {number: 9080}, bind: 0.0.0.0}]
"""


def test_what_an_envoy_rejects_is_told_until_it_is_taken_back(mesh: RunningMesh) -> None:
    """Its port is somebody else's at another address of the machine: policyd cannot know, Envoy does."""
    file = mesh.directory / "mesh" / "anywhere.yaml"
    with socket.create_server(("127.0.0.2", mesh.place("details-v1")["inbound_port"])):
        put(file, ANYWHERE)
        found: list[dict[str, Any]] = []

        def is_told() -> bool:
            """What is on its way differs, too, before Envoy has tried it and said why not."""
            done = said(mesh, "proxy", "diff", "details-v1", "--json")
            found[:] = json.loads(done.stdout)["differences"]
            return done.returncode == 2 and any("Address already in use" in one["detail"] for one in found)

        wait_until(is_told, 45, lambda: str(found))
        assert [(one["kind"], one["name"], one["what"]) for one in found] == [
            ("listeners", "details-v1/inbound", "other")
        ]
        assert "NACK" in said(mesh, "proxy", "status").stdout
        # it goes on with what it had
        with mesh.client("productpage-v1") as client:
            assert client.get("http://details:9080/details/0").status_code == 200
        file.unlink()
    wait_until(lambda: said(mesh, "proxy", "diff", "details-v1").returncode == 0, 45)


def shares(mesh: RunningMesh) -> list[int]:
    """The weights of the routes to reviews in an Envoy that calls it."""
    (table,) = [one["route_config"] for one in holds(mesh, "routes", "productpage-v1")["configs"]]
    (host,) = [one for one in table["virtual_hosts"] if one["name"] == "reviews.default:9080"]
    clusters = host["routes"][0]["route"].get("weighted_clusters", {}).get("clusters", [])
    return [one["weight"] for one in clusters]


def test_the_way_that_is_told_is_the_way_that_is_taken(mesh: RunningMesh) -> None:
    """The decision that is told offline is the one on record."""
    way = json.loads(said(mesh, "route", "productpage", "GET", "http://reviews/reviews/0", "--json").stdout)["way"]
    (arrival,) = way["destinations"][0]["arrives"]
    with mesh.client("productpage-v1") as client:
        response = client.get("http://reviews/reviews/0", headers={"x-request-id": "the-way"})

    of_it = [one for one in mesh.records() if one.get("request_id") == "the-way"]
    reached = [one for one in of_it if one["resource"] == 'Service::"reviews.default"']
    assert response.status_code == 200
    assert [one["decision"] for one in reached] == ["allow"]
    assert reached[0]["reasons"] == [one["id"] for one in arrival["decision"]["reasons"]]
    assert reached[0]["proxy"] in arrival["instances"]


def test_a_running_mesh_is_changed_by_name(mesh: RunningMesh) -> None:
    """The server checks, records, writes and takes the change; what would be refused changes nothing."""
    applied = mesh.says("mesh", "apply", "-f", str(mesh.directory / "tasks" / "reviews-half-v3.yaml"))
    assert [(one["name"], one["what"]) for one in applied["changes"]] == [("reviews", "created")]
    assert [one["metadata"]["name"] for one in mesh.says("mesh", "get", "vs", "reviews")["resources"]] == ["reviews"]
    wait_until(lambda: shares(mesh) == [50, 50], 45)

    refused = said(mesh, "mesh", "delete", "dr", "reviews")
    assert (refused.returncode, "know no subset `v1`" in refused.stderr) == (3, True)
    put(mesh.directory / "operators.cedar", FREEZE)
    wait_until(lambda: said(mesh, "mesh", "delete", "vs", "reviews", "--dry-run").returncode == 1, 45)
    (mesh.directory / "operators.cedar").unlink()
    wait_until(lambda: said(mesh, "mesh", "delete", "vs", "reviews").returncode == 0, 45)
    wait_until(lambda: shares(mesh) == [], 45)

    operations = [one for one in mesh.records() if one.get("detail", {}).get("operation") == "mesh.apply"]
    told = {(one["decision"], *one["detail"].get("changes", ["-"])) for one in operations}
    name = "VirtualService default/reviews"
    assert told == {("allow", f"created {name}"), ("deny", "-"), ("allow", f"removed {name}")}


FREEZE = '@id("freeze")\nforbid (principal, action in Action::"touch", resource);\n'
