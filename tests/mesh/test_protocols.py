"""What a port speaks, by its name and by `appProtocol`: the words of Istio and Kubernetes."""

from __future__ import annotations

import pytest

from policyd.mesh.istio.service import ServicePort
from policyd.mesh.protocols import Protocol, takes_connections, takes_requests
from tests.mesh.sample import meshed, problems


@pytest.mark.parametrize(
    ("name", "app_protocol", "speaks"),
    [
        ("http", None, "http"),
        ("http-main", None, "http"),
        ("http2", None, "http2"),
        ("http2-main", None, "http2"),
        ("grpc", None, "grpc"),
        ("grpc-api", None, "grpc"),
        ("grpc-web", None, "grpc-web"),
        ("grpc-web-page", None, "grpc-web"),
        ("grpc-website", None, "grpc"),
        ("metrics", None, "auto"),
        ("metrics", "http2", "http2"),
        ("tcp-any", None, "tcp"),
        ("tls", None, "tls"),
        ("https-main", None, "tls"),
        ("mongo", None, "tcp"),
        ("mysql-main", None, "tcp"),
        ("redis", None, "tcp"),
        ("http", "grpc", "grpc"),
        ("tcp", "kubernetes.io/h2c", "http2"),
        ("tcp", "kubernetes.io/ws", "http"),
        ("http", "kubernetes.io/wss", "tls"),
    ],
)
def test_it_is_what_app_protocol_says_else_what_the_name_begins_with(
    name: str, app_protocol: str | None, speaks: Protocol
) -> None:
    port = ServicePort.model_validate({"port": 80, "name": name, "app_protocol": app_protocol}, by_name=True)

    assert port.speaks == speaks


@pytest.mark.parametrize("speaks", ["http", "http2", "grpc", "grpc-web", "tcp", "tls"])
def test_either_requests_are_decided_or_connections(speaks: Protocol) -> None:
    mesh = meshed({"workloads.yaml": f"workloads: {{a: {{service: a, ports: [{{port: 80, name: {speaks}}}]}}}}\n"})

    [port] = mesh.services["a.default"].ports
    assert port.protocol == mesh.listeners["a/inbound"].protocol == speaks
    assert takes_requests(speaks) is not takes_connections(speaks)
    assert takes_connections(speaks) is (speaks in ("tcp", "tls"))


UNSAID = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {app: a}, ports: [{port: 80, PORT}]}\n"


@pytest.mark.parametrize(
    ("workload", "service", "speaks"),
    [
        ("port: 80", "", "http"),
        ("port: 80, protocol: auto", "", "auto"),
        ("ports: [{port: 80}]", "", "http"),
        ("ports: [{port: 80, name: metrics}]", "", "auto"),
        ("ports: [{port: 80, name: metrics, protocol: grpc}]", "", "grpc"),
        ("port: 80, protocol: auto", "name: grpc-api", "grpc"),
        ("port: 80, protocol: auto", "name: metrics", "auto"),
        ("port: 80, protocol: tcp", "name: metrics", "tcp"),
        ("port: 80", "name: metrics", "http"),
        ("port: 80, protocol: grpc", "protocol: TCP", "grpc"),
        ("port: 80, protocol: auto", "protocol: TCP", "auto"),
        ("port: 80, protocol: auto", "appProtocol: tcp", "tcp"),
    ],
)
def test_the_service_or_the_workload_says_it_else_the_first_bytes_tell(
    workload: str, service: str, speaks: Protocol
) -> None:
    files = {"workloads.yaml": f"workloads: {{a: {{service: a, {workload}}}}}\n"}
    mesh = meshed(files | ({"mesh/service.yaml": UNSAID.replace("PORT", service)} if service else {}))

    [port] = mesh.services["a.default"].ports
    assert port.protocol == mesh.listeners["a/inbound"].protocol == mesh.instances["a"].ports[0].protocol == speaks
    assert mesh.is_sniffed is (speaks == "auto")


@pytest.mark.parametrize(("port", "speaks"), [(25, "tcp"), (53, "tcp"), (3306, "tcp"), (27017, "tcp"), (5432, "auto")])
def test_of_a_port_whose_application_speaks_first_nothing_is_waited_for(port: int, speaks: Protocol) -> None:
    assert ServicePort.model_validate({"port": port, "name": "db"}).speaks == speaks
    assert takes_connections(speaks)
    assert takes_requests(speaks) is (speaks == "auto")


IN_MESH = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec: {hosts: [a], tcp: [{route: [{destination: {host: a}}]}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out}
spec: {hosts: [out.example.com], resolution: DNS, ports: [{number: 443, name: tcp, protocol: TCP}]}
"""


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ("tcp: [{route: [{destination: {host: a}}]}]", ""),
        ("tls: [{match: [{sniHosts: [a]}], route: [{destination: {host: a}}]}]", ""),
        ("tcp: [{route: [{destination: {host: out.example.com}}]}]",
         "so that no `tcp` and no `tls` rule leads outside; name its protocol"),
        ("tls: [{match: [{sniHosts: [a]}], route: [{destination: {host: out.example.com}}]}]",
         "so that no `tcp` and no `tls` rule leads outside; name its protocol"),
    ],
)  # fmt: skip
def test_where_the_first_bytes_tell_rules_of_connections_hold_inside_the_mesh(rules: str, problem: str) -> None:
    text = IN_MESH.replace("tcp: [{route: [{destination: {host: a}}]}]", rules)
    files = {"workloads.yaml": "workloads: {a: {service: a, port: 9000, protocol: auto}}\n", "mesh/a.yaml": text}

    place = "mesh/a.yaml:4: the host `a` has port 9000, whose first bytes tell what it speaks, "
    if not problem:
        assert meshed(files).virtual_services
        return
    assert problems(files) == [place + problem]
