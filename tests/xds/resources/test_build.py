"""Bookinfo's resources, whole: as golden files, and as the real Envoy accepts them in its strictest mode."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyd import envoy_api
from policyd.envoy_api import CLUSTER, LISTENER, ROUTE, TYPE_PREFIX
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.placement import assumed
from policyd.sources.credentials import read_credentials
from policyd.xds.agreed import SDS_CLUSTER
from policyd.xds.resources.build import build_snapshots
from policyd.xds.snapshot import Resource, Snapshot, check_snapshot, kind
from proxy.bootstrap import INTERNAL_LISTENERS, RUNTIME
from tests.certificates import Authority
from tests.golden import check_json
from tests.mesh.test_istio import LARGE
from tests.xds.resources.folders import CONTROL, TRUST_DOMAIN, WORKLOADS, bookinfo, mesh_of, mesh_with
from tests.xds.resources.test_rules import ACTIONS, MATCHES


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


def inlined(node: Any, tables: dict[str, Any]) -> Any:
    """A listener with its routes in it, so that they are validated too."""
    if isinstance(node, list):
        return [inlined(one, tables) for one in node]
    if not isinstance(node, dict):
        return node
    found = {key: inlined(value, tables) for key, value in node.items() if key != "rds"}
    return found | {"route_config": tables[node["rds"]["route_config_name"]]} if "rds" in node else found


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
    tables = {name: shown(one) for name, one in snapshot.of(ROUTE).items()}
    resources = {
        "clusters": [*(shown(one) for one in snapshot.of(CLUSTER).values()), sds],
        "listeners": [inlined(shown(one), tables) for one in snapshot.of(LISTENER).values()],
    }
    services = [{"envoy_grpc": {"cluster_name": SDS_CLUSTER}}]
    ads = {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": services}
    file = work / "envoy.json"
    file.write_text(
        json.dumps(
            {
                "node": {"id": "n", "cluster": "c"},
                "bootstrap_extensions": INTERNAL_LISTENERS,
                "static_resources": resources,
                "dynamic_resources": {"ads_config": ads},
                "layered_runtime": {"layers": [{"name": "policyd", "static_layer": RUNTIME}]},
            }
        )
    )
    return file


@pytest.mark.e2e
@pytest.mark.parametrize("instance", ["reviews-v1", "ingress"])
def test_the_real_envoy_accepts_it(root: Path, tmp_path: Path, instance: str) -> None:
    accepted(bookinfo(root)[instance], tmp_path)


@pytest.mark.e2e
@pytest.mark.parametrize("instance", ["web-v1", "ingress"])
def test_the_real_envoy_accepts_every_rule_there_is(tmp_path: Path, instance: str) -> None:
    rules = [
        *(yaml.safe_load(rule) for rule, _ in ACTIONS),
        *({"match": [yaml.safe_load(match)], "directResponse": {"status": 200}} for match, _ in MATCHES),
        *({"match": [{"uri": {"regex": regex}}], "directResponse": {"status": 200}} for regex in LARGE),
    ]
    bound = {"hosts": ["api", "shop.example"], "gateways": ["mesh", "edge"], "http": rules}
    edge = {
        "selector": {"istio": "ingressgateway"},
        "servers": [{"port": {"number": 8080, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}],
    }
    resources = [("Gateway", "edge", edge), ("VirtualService", "all", bound)]
    text = yaml.safe_dump_all(
        {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        for kind, name, spec in resources
    )

    accepted(build_snapshots(mesh_with(text), CONTROL)[instance], tmp_path)


def accepted(snapshot: Snapshot, work: Path) -> None:
    """Let the real Envoy read a snapshot in its strictest mode."""
    binary = str(envoy_api.envoy_binary(None))

    done = subprocess.run(
        [binary, "--mode", "validate", "--reject-unknown-dynamic-fields", "-c", str(static(snapshot, work))],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr[-2000:]


TLS_EDGE = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
    - port: {number: 8080, name: http, protocol: HTTP}
      hosts: ["*"]
      tls: {httpsRedirect: true}
    - port: {number: 8081, name: a, protocol: HTTPS}
      hosts: [a.example, "*.a.example"]
      tls: {mode: SIMPLE, credentialName: a, maxProtocolVersion: TLSV1_2, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256]}
    - port: {number: 8081, name: b, protocol: HTTPS}
      hosts: ["default/b.example"]
      tls:
        mode: MUTUAL
        credentialName: a
        subjectAltNames: [client.example]
        verifyCertificateSpki: ["n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg="]
        verifyCertificateHash: ["df6ff72fe9116521268f6f2dd4966f51df479883fe7037b39f75916ac3049d1a"]
    - port: {number: 8081, name: c, protocol: HTTPS}
      hosts: ["*"]
      tls: {mode: OPTIONAL_MUTUAL, credentialName: a, minProtocolVersion: TLSV1_3}
    - port: {number: 8081, name: d, protocol: HTTPS}
      hosts: [two.example]
      tls: {mode: MUTUAL, credentialNames: [rsa, a], caCrl: credentials/revoked.crl}
    - port: {number: 8081, name: e, protocol: HTTPS}
      hosts: [files.example]
      tls:
        mode: SIMPLE
        tlsCertificates:
          - {serverCertificate: credentials/a/tls.crt, privateKey: credentials/a/tls.key}
          - {serverCertificate: credentials/rsa/tls.crt, privateKey: credentials/rsa/tls.key}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{route: [{destination: {host: web}}]}]
"""


def encrypted(work: Path) -> Snapshot:
    """A gateway with every kind of encrypted server."""
    authority = Authority("a")
    for folder in ("a", "rsa"):
        certificate, key = authority.issue("a.example", for_rsa=folder == "rsa")
        (work / "credentials" / folder).mkdir(parents=True)
        for name, text in (("tls.crt", certificate), ("tls.key", key), ("ca.crt", authority.pem)):
            (work / "credentials" / folder / name).write_text(text)
            (work / "credentials" / folder / name).chmod(0o600)
    (work / "credentials" / "rsa" / "ca.crl").write_text(authority.revocations())
    (work / "credentials" / "revoked.crl").write_text(authority.revocations())
    declaration = declare({"workloads.yaml": WORKLOADS, "mesh/it.yaml": TLS_EDGE})
    mesh = build(declaration, TRUST_DOMAIN, assumed(declaration), credentials=read_credentials(work))
    return build_snapshots(mesh, CONTROL)["ingress"]


def test_an_encrypted_gateway_is_sent_as_the_golden_file_says(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    made = whole(encrypted(tmp_path))
    secrets = {name: sorted(one | one.get("validation_context", {})) for name, one in made["secrets"].items()}
    shown = {"listeners": made["listeners"], "routes": made["routes"], "secrets": secrets}

    check_json("xds/edge.json", shown, update=request.config.getoption("--update-golden"))


def test_a_secret_has_the_certificate_and_only_the_place_of_its_key(tmp_path: Path) -> None:
    secret = whole(encrypted(tmp_path))["secrets"]["credentials/a/tls.crt credentials/a/tls.key"]

    assert secret["tls_certificate"]["private_key"] == {"filename": str(tmp_path / "credentials/a/tls.key")}
    assert secret["tls_certificate"]["certificate_chain"]["inline_string"].startswith("-----BEGIN CERTIFICATE-----")


@pytest.mark.e2e
def test_the_real_envoy_accepts_an_encrypted_gateway(tmp_path: Path) -> None:
    accepted(encrypted(tmp_path), tmp_path)
