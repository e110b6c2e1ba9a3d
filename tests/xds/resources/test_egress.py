"""The way out as Envoy's resources: whole as a golden file, and accepted by the real Envoy in its strictest mode."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from policyd import envoy_api
from policyd.envoy_api import CLUSTER, LISTENER, ROUTE
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.outside import Outbound
from policyd.mesh.placement import assumed
from policyd.xds.agreed import SDS_CLUSTER
from policyd.xds.resources.build import build_snapshots
from policyd.xds.resources.model import GUARD, GUARD_ANY, INNER
from policyd.xds.snapshot import Snapshot, check_snapshot
from tests.golden import check_json
from tests.xds.resources.folders import CONTROL, TRUST_DOMAIN, WORKLOADS
from tests.xds.resources.test_build import shown, static

OUTSIDE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: books}
spec:
  hosts: [books.example.com]
  addresses: [192.0.2.7, "2001:db8::7"]
  ports:
    - {number: 80, name: http, protocol: HTTP, targetPort: 8080}
    - {number: 443, name: tls, protocol: TLS}
  resolution: STATIC
  endpoints:
    - {address: 192.0.2.1, ports: {http: 8081}, locality: eu/north, weight: 3}
    - {address: 192.0.2.2}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: looked-up}
spec:
  hosts: [grpc.example.com]
  ports: [{number: 50051, name: grpc, protocol: GRPC}]
  resolution: DNS
  endpoints: [{address: eu.grpc.example.com}, {address: us.grpc.example.com}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: in-turn}
spec:
  hosts: [turn.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS_ROUND_ROBIN
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild}
spec:
  hosts: ["*.wild.example.com"]
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: https, protocol: HTTPS}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: far, namespace: far}
spec:
  hosts: [far.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  exportTo: ["."]
"""
ANY = Outbound("ALLOW_ANY", resolvers=(("127.0.0.1", 53),))


def snapshots(outbound: Outbound) -> dict[str, Snapshot]:
    declaration = declare({"workloads.yaml": WORKLOADS, "mesh/outside.yaml": OUTSIDE})
    return dict(build_snapshots(build(declaration, TRUST_DOMAIN, assumed(declaration), outbound), CONTROL))


def outward(snapshot: Snapshot) -> dict[str, Any]:
    """What is there because of the outside."""
    names = [name for name in snapshot.of(CLUSTER) if ".example.com" in name or name == "egress-any"]
    hosts = shown(snapshot.of(ROUTE)["outbound"])["virtual_hosts"]
    return {
        "clusters": {name: shown(snapshot.of(CLUSTER)[name]) for name in sorted(names)},
        "listener": shown(snapshot.of(LISTENER)["web-v1/outbound"]),
        "virtual_hosts": {one["name"]: one for one in hosts if "example.com" in one["name"] or one["domains"] == ["*"]},
    }


@pytest.mark.parametrize(("name", "outbound"), [("registry_only", Outbound()), ("allow_any", ANY)])
def test_the_way_out_is_sent_as_the_golden_file_says(
    name: str, outbound: Outbound, request: pytest.FixtureRequest
) -> None:
    made = outward(check_snapshot(snapshots(outbound)["web-v1"], static_clusters={SDS_CLUSTER}))

    check_json(f"xds/egress_{name}.json", made, update=request.config.getoption("--update-golden"))


def test_every_route_of_a_sidecar_is_asked_about_or_decided_elsewhere() -> None:
    """Without a word of its own a request is asked about, and refused as it names no listener of its route."""
    for outbound in (Outbound(), ANY):
        for host in shown(snapshots(outbound)["web-v1"].of(ROUTE)["outbound"])["virtual_hosts"]:
            said = host["typed_per_filter_config"]["envoy.filters.http.ext_authz"]
            clusters = {route["route"]["cluster"] for route in host["routes"] if "route" in route} - {INNER}
            ends = [
                one["metadata"]["filter_metadata"]["policyd"]["leaves"] for one in host["routes"] if "metadata" in one
            ]
            clusters = (clusters - {GUARD, GUARD_ANY}) | set(ends)
            inside = all(name.endswith((".default", ".far")) for name in clusters)
            assert said.get("disabled", False) is inside, host["name"]
            if not inside:
                pattern = said["check_settings"]["context_extensions"]["policyd.host"]
                assert (
                    clusters <= {"egress-any"} if pattern == "*" else all(c.endswith(f"||{pattern}") for c in clusters)
                )


def test_a_tunnel_that_ends_inside_is_asked_about_there() -> None:
    for host in shown(snapshots(ANY)["web-v1"].of(ROUTE)["outbound"])["virtual_hosts"]:
        for route in host["routes"]:
            if route.get("route", {}).get("cluster") == INNER:
                assert "connect_matcher" in route["match"]
                assert route["typed_per_filter_config"]["envoy.filters.http.ext_authz"]["disabled"]
    inside = shown(snapshots(ANY)["web-v1"].of(LISTENER)[INNER])["filter_chains"][0]["filters"][0]["typed_config"]
    assert inside["rds"]["route_config_name"] == "outbound"
    assert "envoy.filters.http.ext_authz" in [one["name"] for one in inside["http_filters"]]


def test_a_host_is_known_only_where_it_is_exported_to() -> None:
    def hosts(instance: str) -> set[str]:
        return {one["name"] for one in shown(snapshots(Outbound())[instance].of(ROUTE)["outbound"])["virtual_hosts"]}

    assert hosts("other-v1") - hosts("web-v1") == {"far.example.com:80"}


@pytest.mark.parametrize("entries", [OUTSIDE, OUTSIDE.partition("---\n")[0]], ids=["looked up", "static"])
def test_an_address_that_is_new_to_the_mesh_is_forbidden_at_once(entries: str) -> None:
    far = "  api-v3: {service: api, port: 9080, address: 198.51.100.7, appPort: 1, inboundPort: 2, outboundPort: 3}\n"
    at = WORKLOADS.index("  web-v1")
    built = None
    for workloads in (WORKLOADS, WORKLOADS[:at] + far + WORKLOADS[at:]):
        declaration = declare({"workloads.yaml": workloads, "mesh/outside.yaml": entries})
        built = build_snapshots(build(declaration, TRUST_DOMAIN, assumed(declaration)), CONTROL, built)

    assert built is not None
    cluster = shown(built["web-v1"].of(CLUSTER)["outbound|80||books.example.com"])
    assert "198.51.100.7" in str(cluster)


@pytest.mark.e2e
@pytest.mark.parametrize("outbound", [Outbound(), ANY])
def test_the_real_envoy_accepts_it(tmp_path: Path, outbound: Outbound) -> None:
    file = static(snapshots(outbound)["web-v1"], tmp_path)

    done = subprocess.run(
        [str(envoy_api.envoy_binary(None)), "--mode", "validate", "--reject-unknown-dynamic-fields", "-c", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr[-2000:]
