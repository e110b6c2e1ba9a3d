"""`ingress` of Sidecars to clusters and listeners of what comes in; credentials and headers to those of what leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, SECRET
from policyd.mesh.build import build
from policyd.mesh.credentials import CredentialFile
from policyd.mesh.declare import declare
from policyd.mesh.placement import assumed
from policyd.xds.agreed import SDS_CLUSTER
from policyd.xds.resources.build import build_snapshots
from policyd.xds.snapshot import Snapshot, check_snapshot
from tests.certificates import Authority
from tests.golden import check_json
from tests.xds.resources.folders import CONTROL, TRUST_DOMAIN
from tests.xds.resources.test_build import accepted, shown, whole

WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80}
  api-v1: {service: api, ports: [{port: 80}, {port: 90, name: http-admin}, {port: 91, name: tcp-raw}]}
"""
SIDECAR = """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: api}
spec:
  workloadSelector: {labels: {app: api}}
  ingress:
    - {port: {number: 80, protocol: HTTP, name: http}, defaultEndpoint: "unix:///run/api.sock", bind: 0.0.0.0}
    - port: {number: 90}
      defaultEndpoint: 0.0.0.0:9090
      connectionPool: {http: {http1MaxPendingRequests: 3, maxRequestsPerConnection: 7, idleTimeout: 9s}}
    - {port: {number: 91}, captureMode: NONE, defaultEndpoint: 127.0.0.1:91}
  inboundConnectionPool: {tcp: {maxConnections: 5, connectTimeout: 2s, tcpKeepalive: {time: 60s}}}
"""
OUTSIDE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partners}
spec:
  hosts: [mutual.example.com, simple.example.com, headed.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: mutual}
spec:
  host: mutual.example.com
  trafficPolicy:
    portLevelSettings: [{port: {number: 80}, tls: {mode: MUTUAL, credentialName: partner}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: simple}
spec:
  host: simple.example.com
  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /roots.pem, caCrl: /revoked.pem}, proxyProtocol: {version: V2}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: headed}
spec: {host: headed.example.com, trafficPolicy: {proxyProtocol: {}}}
"""


def snapshot(instance: str, text: str, **files: CredentialFile) -> Snapshot:
    declaration = declare({"workloads.yaml": WORKLOADS, "mesh/it.yaml": text})
    mesh = build(declaration, TRUST_DOMAIN, assumed(declaration), credentials={one.path: one for one in files.values()})
    return check_snapshot(build_snapshots(mesh, CONTROL)[instance], static_clusters={SDS_CLUSTER})


def credential(folder: str) -> dict[str, CredentialFile]:
    return {
        name: CredentialFile(f"credentials/partner/{path}", f"{folder}/{path}", text, "1", is_key)
        for name, path, text, is_key in (
            ("own", "tls.crt", "OWN", False),
            ("key", "tls.key", "", True),
            ("roots", "ca.crt", "ROOTS", False),
        )
    }


def test_what_comes_in_is_sent_as_the_golden_file_says(request: pytest.FixtureRequest) -> None:
    made = whole(snapshot("api-v1", SIDECAR))
    inbound = {name: one for name, one in made["clusters"].items() if name.startswith("inbound|")}
    addresses = {name: one["address"] for name, one in made["listeners"].items() if "/inbound" in name}

    check_json(
        "xds/sidecar_ingress.json",
        {"clusters": inbound, "listeners": addresses},
        update=request.config.getoption("--update-golden"),
    )


def test_what_leaves_with_credentials_is_sent_as_the_golden_file_says(request: pytest.FixtureRequest) -> None:
    made = whole(snapshot("web-v1", OUTSIDE, **credential("/mesh/credentials/partner")))
    sockets = {name: one.get("transport_socket") for name, one in made["clusters"].items() if "example.com" in name}

    check_json(
        "xds/partners.json",
        {"transport_sockets": sockets, "secrets": secrets("web-v1", "/mesh/credentials/partner")},
        update=request.config.getoption("--update-golden"),
    )


def secrets(instance: str, folder: str) -> dict[str, Any]:
    return {name: shown(one) for name, one in snapshot(instance, OUTSIDE, **credential(folder)).of(SECRET).items()}


def test_a_private_key_is_in_no_resource() -> None:
    own = secrets("web-v1", "/k")["credentials/partner/tls.crt credentials/partner/tls.key"]
    assert own["tls_certificate"]["private_key"] == {"filename": "/k/tls.key"}


def test_who_calls_goes_on_reaching_the_sidecar_where_it_is() -> None:
    with_, without = (snapshot("web-v1", text) for text in (SIDECAR, OUTSIDE.partition("---")[0]))
    for name in ("outbound|80||api.default", "outbound|90||api.default", "outbound|91||api.default"):
        assert with_.of(ENDPOINT)[name] == without.of(ENDPOINT)[name]
        assert with_.of(CLUSTER)[name] == without.of(CLUSTER)[name]


TLS = """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: web}
spec:
  workloadSelector: {labels: {app: web}}
  ingress: [{port: {number: 80}, tls: {mode: MUTUAL, credentialName: partner}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: web}
spec: {selector: {matchLabels: {app: web}}, mtls: {mode: DISABLE}}
---
"""


def test_strangers_are_shown_a_certificate_where_a_sidecar_says_so() -> None:
    # what its class has already, for what leaves, is not there twice
    web = snapshot("web-v1", TLS + OUTSIDE, **credential("/k"))
    assert sorted(web.of(SECRET)) == [
        "credentials/partner/ca.crt",
        "credentials/partner/tls.crt credentials/partner/tls.key",
    ]
    for made in (web, snapshot("web-v1", TLS, **credential("/k"))):
        (chain,) = shown(made.of(LISTENER)["web-v1/inbound"])["filter_chains"]
        context = chain["transport_socket"]["typed_config"]
        [certificate] = context["common_tls_context"]["tls_certificate_sds_secret_configs"]
        assert (context["require_client_certificate"], certificate["name"]) == (True, sorted(made.of(SECRET))[1])
        assert "api-v1" not in json.dumps(chain)
        assert "web-v1/inbound/plaintext" in json.dumps(chain)
    assert not snapshot("api-v1", TLS, **credential("/k")).of(SECRET)


@pytest.mark.alone  # Envoy's validation crashes where there is no network to ask for names in
@pytest.mark.e2e
def test_the_real_envoy_accepts_it(tmp_path: Path) -> None:
    authority = Authority("Partner")
    roots, revoked = tmp_path / "roots.pem", tmp_path / "revoked.pem"
    roots.write_text(authority.pem)
    revoked.write_text(authority.revocations())
    text = OUTSIDE.replace("/roots.pem", str(roots)).replace("/revoked.pem", str(revoked))
    accepted(snapshot("web-v1", text, **credential(str(tmp_path))), tmp_path)
    accepted(snapshot("api-v1", SIDECAR), tmp_path)
    accepted(snapshot("web-v1", TLS, **credential(str(tmp_path))), tmp_path)
