"""Workloads that are declared to have no sidecar, and what is refused of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from policyd.errors import InvalidInput
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Instance, Mesh
from policyd.mesh.placement import assumed

GREETER = "workloads:\n  greeter-v1: {service: greeter, port: 50051, protocol: grpc, proxyless: true%s}\n"
SERVICE = (
    "apiVersion: v1\nkind: Service\nmetadata: {name: greeter}\n"
    "spec: {selector: {app: greeter}, ports: [{name: grpc, port: 80, targetPort: 50051}]}\n"
)
MACHINE = (
    "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n"
    "metadata: {name: greeter-v1, annotations: {inject.istio.io/templates: grpc-agent}}\n"
    "spec: {address: 10.0.0.7, labels: {app: greeter}%s}\n"
)


def mesh_of(files: Mapping[str, str]) -> Mesh:
    declaration = declare(files)
    return build(declaration, "cluster.local", assumed(declaration))


def reached(instance: Instance) -> tuple[bool, str, list[tuple[int, int, int]], int, str]:
    ports = [(port.number, port.app_port, port.inbound_port) for port in instance.ports]
    return instance.proxyless, instance.address, ports, instance.outbound_port, instance.proxy_secret


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"workloads.yaml": GREETER % ", inboundPort: 7000"},
            (True, "127.0.0.1", [(50051, 7000, 7000)], 0, ""),
        ),
        (
            {"workloads.yaml": GREETER % ", inboundPort: 7000, address: 10.0.0.7"},
            (True, "10.0.0.7", [(50051, 7000, 7000)], 0, ""),
        ),
        (
            {"mesh/it.yaml": f"{SERVICE}---\n{MACHINE % ''}"},
            (True, "10.0.0.7", [(50051, 50051, 50051)], 0, ""),
        ),
        (
            {"mesh/it.yaml": f"{SERVICE}---\n{MACHINE % ', ports: {grpc: 9000}'}"},
            (True, "10.0.0.7", [(50051, 9000, 9000)], 0, ""),
        ),
    ],
)
def test_peers_of_a_proxyless_workload_come_to_its_application(files: Mapping[str, str], expected: object) -> None:
    assert reached(mesh_of(files).instances["greeter-v1"]) == expected


def test_another_template_is_a_sidecar() -> None:
    machine = (MACHINE % "").replace("grpc-agent", "sidecar")

    assert not mesh_of({"mesh/it.yaml": f"{SERVICE}---\n{machine}"}).instances["greeter-v1"].proxyless


def problems_of(files: Mapping[str, str]) -> list[str]:
    with pytest.raises(InvalidInput) as raised:
        mesh_of(files)
    return [str(problem) for problem in raised.value.problems]


PEERS = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: it}
spec: {mtls: {mode: PERMISSIVE}}
"""
INGRESS = """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: it}
spec:
  workloadSelector: {labels: {app: greeter}}
  ingress: [{port: {number: 50051, protocol: GRPC, name: grpc}, defaultEndpoint: "127.0.0.1:9000"}]
"""
TOKENS = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: it}
spec: {jwtRules: [{issuer: a, jwksUri: "https://issuer.example/keys"}]}
"""


@pytest.mark.parametrize(
    ("more", "resource", "problem"),
    [
        (
            ", protocol: http",
            "",
            "workloads.yaml:2: `greeter-v1` speaks http on port 50051, and proxyless workloads speak grpc; "
            "write `protocol: grpc`, or give it a sidecar",
        ),
        (
            ", appPort: 9000",
            "",
            "workloads.yaml:2: `appPort` means nothing to `greeter-v1`, which has no sidecar; "
            "write `inboundPort`, where its application listens",
        ),
        (
            ", outboundPort: 9000",
            "",
            "workloads.yaml:2: `outboundPort` means nothing to `greeter-v1`, which has no sidecar; take it out",
        ),
        (
            ", health: /ready",
            "",
            "workloads.yaml:2: `health` means nothing to `greeter-v1`, which has no sidecar; "
            "take it out; peers find out by themselves whether it is there",
        ),
        (
            ", metrics: {path: /metrics}",
            "",
            "workloads.yaml:2: `metrics` means nothing to `greeter-v1`, which has no sidecar; "
            "say by `port` of it where the application shows them, which is not where it speaks gRPC",
        ),
        (
            "",
            PEERS,
            "workloads.yaml:2: `greeter-v1` takes plain text on port 50051, and a proxyless workload takes mutual TLS "
            "alone; let a PeerAuthentication say STRICT for it",
        ),
        (
            "",
            INGRESS,
            "workloads.yaml:2: `greeter-v1` has a Sidecar with `ingress`, and no sidecar; "
            "take it out of what that selects",
        ),
        (
            "",
            TOKENS,
            "workloads.yaml:2: `greeter-v1` has a RequestAuthentication, and gRPC looks at no tokens; "
            "take it out of what that selects",
        ),
    ],
)
def test_what_only_a_sidecar_could_do_is_refused(more: str, resource: str, problem: str) -> None:
    workloads = (GREETER % more).replace(", protocol: grpc", "") if "protocol" in more else GREETER % more

    assert problems_of({"workloads.yaml": workloads, "mesh/it.yaml": resource}) == [problem]


def test_a_machine_is_refused_where_it_is_declared() -> None:
    text = f"{SERVICE.replace('name: grpc', 'name: http')}---\n{MACHINE % ''}"

    assert problems_of({"mesh/it.yaml": text}) == [
        "mesh/it.yaml:8: `greeter-v1` speaks http on port 50051, and proxyless workloads speak grpc; "
        "write `protocol: grpc`, or give it a sidecar"
    ]
