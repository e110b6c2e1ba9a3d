"""Workloads with several ports: each is found by its number or name, and each has what is its own."""

from __future__ import annotations

import pytest

from policyd.mesh.model import Listener, Port, Served
from tests.mesh.sample import meshed, problems

WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80}
  api-v1:
    service: api
    ports:
      - {port: 8080, name: http-api}
      - {port: 9000, name: tcp-admin, inboundPort: 2900}
  api-v2:
    service: api
    ports:
      - {port: 9000, name: tcp-admin}
      - {port: 8080, name: http-api, appPort: 2080}
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: api}
spec:
  selector: {app: api}
  ports:
    - {port: 80, targetPort: 8080, name: http-api}
    - {port: 9000, targetPort: tcp-admin, name: tcp-admin}
"""
FURTHER = """\
apiVersion: v1
kind: Service
metadata: {name: admin}
spec: {selector: {app: api}, ports: [{port: 1, targetPort: tcp-admin, name: tcp}]}
"""
PEERS = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: api}
spec:
  selector: {matchLabels: {app: api}}
  mtls: {mode: STRICT}
  portLevelMtls: {9000: {mode: PERMISSIVE}}
"""
RULE = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec:
  host: api
  trafficPolicy: {portLevelSettings: [{port: {number: 9000}, tls: {mode: DISABLE}}]}
"""
MACHINE = """\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: api-vm, annotations: {policyd/inboundPort.tcp-admin: "15016"}}
spec: {address: 192.0.2.1, labels: {class: vm}, ports: {http-api: 8181}}
"""
OF_MACHINES = SERVICE.replace("metadata: {name: api}", "metadata: {name: vm}").replace("app: api", "class: vm")


def folder(**files: str) -> dict[str, str]:
    named = {f"mesh/{name}.yaml": text for name, text in files.items() if name != "workloads"}
    return {"workloads.yaml": files.get("workloads", WORKLOADS), **named}


def test_without_a_service_there_is_one_of_all_ports_by_their_own_numbers() -> None:
    mesh = meshed(folder())

    assert mesh.services["api.default"].ports == (Port(8080, "http-api"), Port(9000, "tcp-admin", "tcp"))
    one, other = mesh.instances["api-v1"].ports, mesh.instances["api-v2"].ports
    assert [(port.number, port.protocol, port.name) for port in one] == [
        (8080, "http", "http-api"),
        (9000, "tcp", "tcp-admin"),
    ]
    assert [port.number for port in other] == [9000, 8080]
    places = [port.app_port for port in (*one, *other)] + [port.inbound_port for port in (*one, *other)]
    assert len(set(places)) == 8
    assert (one[1].inbound_port, other[1].app_port) == (2900, 2080)


def test_a_service_leads_to_ports_by_number_or_name_and_is_asked_about_with_its_own_numbers() -> None:
    mesh = meshed(folder(service=SERVICE, further=FURTHER))

    assert mesh.services["api.default"].ports == (
        Port(80, "http-api", "http", target=8080),
        Port(9000, "tcp-admin", "tcp"),
    )
    api = mesh.instances["api-v1"]
    assert [(port.number, port.service_port) for port in api.ports] == [(8080, 80), (9000, 9000)]
    assert mesh.reached(api, "api.default", 80) == api.ports[0]
    assert mesh.reached(api, "admin.default", 1) == api.ports[1]
    assert mesh.reached(api, "api.default", 8080) is None
    assert [
        (one.name, one.service, one.port, one.protocol)
        for one in mesh.listeners.values()
        if one.instance == "api-v1" and one.side == "inbound"
    ] == [
        ("api-v1/inbound", "api.default", 80, "http"),
        ("api-v1/inbound/9000", "api.default", 9000, "tcp"),
    ]


def test_each_port_has_its_own_mutual_tls() -> None:
    mesh = meshed(folder(peers=PEERS, rule=RULE))

    api = mesh.instances["api-v1"]
    assert [port.peers for port in api.ports] == ["STRICT", "PERMISSIVE"]
    assert {name for name, one in mesh.listeners.items() if one.instance == "api-v1" and one.side == "inbound"} == {
        "api-v1/inbound",
        "api-v1/inbound/9000",
        "api-v1/inbound/9000/plaintext",
    }
    assert mesh.listeners["api-v1/inbound/9000/plaintext"] == Listener(
        "api-v1/inbound/9000/plaintext",
        "inbound",
        "api-v1",
        api.workload,
        "api.default",
        9000,
        verifies_peers=False,
        protocol="tcp",
    )


def test_a_machine_has_the_ports_of_its_service() -> None:
    machine = meshed(folder(service=SERVICE, machines=OF_MACHINES, machine=MACHINE)).instances["api-vm"]

    assert machine.ports == (
        Served(8080, 80, "http", "http-api", app_port=8181, inbound_port=15006),
        Served(9000, 9000, "tcp", "tcp-admin", app_port=9000, inbound_port=15016),
    )


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        (
            "workloads",
            "port: 80}",
            "port: 80, ports: [{port: 81}]}",
            "workloads.yaml:2: `workloads.web-v1`: give either `port` or `ports`",
        ),
        (
            "workloads",
            "service: web, port: 80",
            "service: web",
            "workloads.yaml:2: `workloads.web-v1`: `port` is missing; add it, or `ports`",
        ),
        (
            "workloads",
            "service: web, port: 80",
            "service: web, appPort: 5, ports: [{port: 80}]",
            "workloads.yaml:2: `workloads.web-v1`: `appPort` is of a single `port`; "
            "write it into the entries of `ports`",
        ),
        (
            "workloads",
            "{port: 9000, name: tcp-admin, inboundPort: 2900}",
            "{port: 9000, name: http-api}",
            "workloads.yaml:3: `workloads.api-v1`: two of `ports` are called `http-api`; give each a `name` of its own",
        ),
        (
            "workloads",
            "{port: 9000, name: tcp-admin, inboundPort: 2900}",
            "{port: 8080, name: tcp-admin}",
            "workloads.yaml:3: `workloads.api-v1`: port 8080 is in `ports` twice; remove one",
        ),
        (
            "workloads",
            "inboundPort: 2900",
            "inboundPort: 2080",
            "workloads.yaml:12: port 2080 of `api-v2` is given to `api-v1` already; give another one",
        ),
        (
            "workloads",
            "{port: 9000, name: tcp-admin}",
            "{port: 9001, name: tcp-admin}",
            "workloads.yaml:10: service `api.default` has ports 9001, 8080 here and 8080, 9000 in `api-v1`; "
            "give both the same ports",
        ),
        (
            "workloads",
            "{port: 9000, name: tcp-admin}",
            "{port: 9000, name: tcp-other}",
            "workloads.yaml:10: port 9000 of service `api.default` has another name in `api-v1`; "
            "give both the same name",
        ),
        (
            "workloads",
            "{port: 9000, name: tcp-admin}",
            "{port: 9000, name: tcp-admin, protocol: http}",
            "workloads.yaml:10: service `api.default` speaks http here and another protocol in `api-v1`; "
            "give both the same protocol",
        ),
        (
            "service",
            "    - {port: 9000, targetPort: tcp-admin, name: tcp-admin}\n",
            "",
            "mesh/service.yaml:6: service `api.default` lacks port 9000 of `api-v1`; add it, or change workloads.yaml",
        ),
        (
            "service",
            "targetPort: 8080",
            "targetPort: 8081",
            "mesh/service.yaml:7: port 80 of service `api.default` leads to 8081, `api-v1` has 8080, 9000; "
            "set `targetPort` to one of these",
        ),
        (
            "service",
            "targetPort: tcp-admin",
            "targetPort: tcp-amdin",
            "mesh/service.yaml:8: port 9000 of service `api.default` leads to tcp-amdin, "
            "`api-v1` has http-api, tcp-admin; set `targetPort` to one of these",
        ),
        (
            "service",
            "targetPort: 8080",
            "targetPort: 70000",
            "mesh/service.yaml:7: `spec.ports[0].targetPort`: the number 70000 is no port; "
            "write a number up to 65535, or the name of a workload's port",
        ),
        (
            "service",
            "targetPort: 8080, name: http-api",
            "targetPort: tcp-admin, name: http-api",
            "mesh/service.yaml:7: port 80 of service `api.default` speaks http, `api-v1` tcp; "
            "give both the same protocol",
        ),
        (
            "peers",
            "9000: {mode",
            "9001: {mode",
            "mesh/peers.yaml:7: none of the selected workloads has port 9001; "
            "they have 8080, 9000 (`port` of workloads.yaml)",
        ),
        (
            "rule",
            "number: 9000",
            "number: 8080",
            "mesh/rule.yaml:6: `DISABLE` towards `api`, whose sidecars want the mesh's mutual TLS; "
            "leave `tls` out, or write `ISTIO_MUTUAL`",
        ),
        (
            "machine",
            "policyd/inboundPort.tcp-admin",
            "policyd/inboundPort",
            "mesh/machine.yaml:3: where `api-vm` is reached on port `tcp-admin` of `vm` is not said; "
            "add the annotation `policyd/inboundPort.tcp-admin`",
        ),
        (
            "machine",
            "policyd/inboundPort.tcp-admin",
            "policyd/inboundPort.other",
            "mesh/machine.yaml:3: the service `vm` has no port `other`; it has http-api, tcp-admin",
        ),
    ],
)
def test_what_does_not_fit_is_refused(file: str, old: str, new: str, problem: str) -> None:
    files = {
        "workloads": WORKLOADS,
        "service": SERVICE,
        "peers": PEERS,
        "rule": RULE,
        "machines": OF_MACHINES,
        "machine": MACHINE,
    }
    if file != "service":
        del files["service"]
    assert old in files[file]

    assert problem in problems(folder(**files | {file: files[file].replace(old, new)}))
