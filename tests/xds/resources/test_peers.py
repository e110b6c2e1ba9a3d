"""PeerAuthentication to filter chains, and to how callers speak to each endpoint."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from policyd import envoy_api
from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER
from policyd.xds.resources.build import build_snapshots
from policyd.xds.snapshot import Snapshot
from tests.xds.resources.folders import CONTROL, WORKLOADS, mesh_of
from tests.xds.resources.test_build import shown, static


def snapshots(mode: str, labels: str = "app: api") -> dict[str, Snapshot]:
    peers = f"""\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: it}}
spec: {{selector: {{matchLabels: {{{labels}}}}}, mtls: {{mode: {mode}}}}}
"""
    workloads = WORKLOADS.replace("api-v2: {", "api-v2: {labels: {version: v2}, ")
    return dict(build_snapshots(mesh_of({"workloads.yaml": workloads, "mesh/it.yaml": peers}), CONTROL))


def asked_for(chain: dict[str, Any]) -> str:
    """The listener that a chain's routes name."""
    routes = chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"]
    settings = routes[0]["typed_per_filter_config"]["envoy.filters.http.ext_authz"]["check_settings"]
    return str(settings["context_extensions"]["policyd.listener"])


@pytest.mark.parametrize(
    ("mode", "chains", "inspects"),
    [
        ("STRICT", [("", True, "api-v1/inbound")], False),
        ("PERMISSIVE", [("tls", True, "api-v1/inbound"), ("raw_buffer", False, "api-v1/inbound/plaintext")], True),
        ("DISABLE", [("", False, "api-v1/inbound/plaintext")], False),
    ],
)
def test_each_way_in_is_a_chain_that_asks_for_its_own_listener(
    mode: str, chains: list[tuple[str, bool, str]], inspects: bool
) -> None:
    listener = shown(snapshots(mode)["api-v1"].of(LISTENER)["api-v1/inbound"])

    found = [
        (one.get("filter_chain_match", {}).get("transport_protocol", ""), "transport_socket" in one, asked_for(one))
        for one in listener["filter_chains"]
    ]
    assert (found, "listener_filters" in listener) == (chains, inspects)


def test_a_stranger_s_papers_and_request_ids_are_not_passed_on() -> None:
    _, plain = shown(snapshots("PERMISSIVE")["api-v1"].of(LISTENER)["api-v1/inbound"])["filter_chains"]
    manager = plain["filters"][0]["typed_config"]

    assert "preserve_external_request_id" not in manager
    # SANITIZE is the default, which Envoy's JSON leaves out
    assert manager.get("forward_client_cert_details", "SANITIZE") == "SANITIZE"


@pytest.mark.parametrize(
    ("mode", "labels", "tls", "plain", "endpoints"),
    [
        ("STRICT", "app: api", True, False, [False, False]),
        ("PERMISSIVE", "app: api", True, False, [False, False]),
        ("DISABLE", "app: api", False, False, [True, True]),
        ("DISABLE", "version: v2", True, True, [False, True]),
    ],
)
def test_callers_speak_to_each_endpoint_as_it_wants(
    mode: str, labels: str, tls: bool, plain: bool, endpoints: list[bool]
) -> None:
    web = snapshots(mode, labels)["web-v1"]
    cluster = shown(web.of(CLUSTER)["outbound|9080||api.default"])
    (group,) = shown(web.of(ENDPOINT)["outbound|9080||api.default"])["endpoints"]

    assert ("transport_socket" in cluster, "transport_socket_matches" in cluster) == (tls, plain)
    metadata = [one["metadata"]["filter_metadata"] for one in group["lb_endpoints"]]
    assert ["envoy.transport_socket_match" in one for one in metadata] == endpoints


@pytest.mark.e2e
@pytest.mark.parametrize(("mode", "labels"), [("PERMISSIVE", "app: api"), ("DISABLE", "version: v2")])
@pytest.mark.parametrize("instance", ["api-v2", "web-v1"])
def test_the_real_envoy_accepts_it_in_its_strictest_mode(tmp_path: Path, mode: str, labels: str, instance: str) -> None:
    command = [str(envoy_api.envoy_binary(None)), "--mode", "validate", "--reject-unknown-dynamic-fields", "-c"]
    file = static(snapshots(mode, labels)[instance], tmp_path)

    done = subprocess.run([*command, str(file)], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr[-2000:]
