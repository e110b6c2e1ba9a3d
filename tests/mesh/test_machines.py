"""Machines in Istio's words: WorkloadEntries become instances, ServiceEntries inside the mesh become Services."""

from __future__ import annotations

import pytest

from policyd.mesh.locality import parse_locality
from policyd.mesh.model import Instance, Listener, Port, Served, Service
from policyd.spiffe import SpiffeId
from tests.mesh.sample import GOOD, meshed, problems

MACHINE = """\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: db-vm
  annotations: {policyd/inboundPort: "25006", other/key: x}
spec:
  address: 192.0.2.10
  labels: {app: db, class: vm}
  ports: {http: 8306}
  serviceAccount: db-vm
  locality: eu/north
"""
ENTRY = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db, labels: {tier: data}}
spec:
  hosts: [db.default.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{number: 3306, name: http, protocol: HTTP}]
  resolution: STATIC
  workloadSelector: {labels: {app: db}}
"""


def folder(machine: str = MACHINE, entry: str = ENTRY) -> dict[str, str]:
    return {**GOOD, "mesh/machine.yaml": machine, "mesh/inside.yaml": entry}


def test_a_machine_is_an_instance_of_the_service_that_selects_it() -> None:
    mesh = meshed(folder())
    account = SpiffeId.workload("cluster.local", "default", "db-vm")

    assert mesh.services["db.default"] == Service("db", "default", (Port(3306),), {"tier": "data"})
    machine = mesh.instances["db-vm"]
    assert machine == Instance(
        name="db-vm",
        workload=account,
        role="sidecar",
        service="db.default",
        ports=(Served(3306, 3306, app_port=8306, inbound_port=25006),),
        labels={"app": "db", "class": "vm"},
        address="192.0.2.10",
        outbound_port=15001,
        proxy_secret=machine.proxy_secret,
        locality=parse_locality("eu/north"),
    )
    assert mesh.instances_of("db.default") == (machine,)
    assert mesh.listeners["db-vm/inbound"] == Listener(
        "db-vm/inbound", "inbound", "db-vm", account, "db.default", 3306, verifies_peers=True
    )


def test_a_core_service_selects_machines_too() -> None:
    service = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {selector: {class: vm}, ports: [{port: 80}]}\n"
    )
    assert meshed(folder(entry=service)).instances["db-vm"].service_port == 80


def test_a_machine_may_speak_tcp() -> None:
    tcp = ENTRY.replace("name: http, protocol: HTTP", "name: mysql, protocol: TCP")
    mesh = meshed(folder(machine=MACHINE.replace("http: 8306", "tcp-mysql: 8306"), entry=tcp))
    assert mesh.services["db.default"].ports == (Port(3306, "tcp-mysql", "tcp"),)
    [port] = mesh.instances["db-vm"].ports
    assert (port.protocol, port.name, port.app_port) == ("tcp", "tcp-mysql", 8306)


def test_where_nothing_is_said_the_ports_are_istios() -> None:
    plain = MACHINE.replace('\n  annotations: {policyd/inboundPort: "25006", other/key: x}', "").replace(
        "  ports: {http: 8306}\n", ""
    )
    machine = meshed(folder(machine=plain)).instances["db-vm"]
    [port] = machine.ports
    assert (port.app_port, port.inbound_port, machine.outbound_port) == (3306, 15006, 15001)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "app: db",
            "app: bd",
            "8: no Service of `default` selects the machine `db-vm`; "
            "declare a Service, or a ServiceEntry inside the mesh, whose selector its labels have",
        ),
        ("name: db-vm", "name: web-v1", "4: an instance is called `web-v1` already; rename one"),
        ("{http: 8306}", "{web: 8306}", "9: the service `db` has no port `web`; it has http"),
        (
            "192.0.2.10",
            "db.example.com",
            "7: `spec.address`: `db.example.com` is no IP address; write one, as in `127.0.0.1`",
        ),
        (
            '"25006"',
            '"x"',
            "1: `policyd/inboundPort` is no port: `x`; write a number in quotes, up to 65535",
        ),
        (
            "policyd/inboundPort",
            "policyd/inPort",
            "1: `policyd/inPort` is no annotation of ours; known are `policyd/inboundPort` and `policyd/outboundPort`",
        ),
        (
            "  locality",
            "  network: far\n  locality",
            "11: field `network` of WorkloadEntry is not supported in `spec`; "
            "every proxy must reach the machine's `address` directly; take it out",
        ),
    ],
)
def test_a_machine_that_fits_nowhere_is_refused_with_its_line(old: str, new: str, problem: str) -> None:
    assert old in MACHINE
    found = problems(folder(machine=MACHINE.replace(old, new)))
    assert [one for one in found if "inside.yaml" not in one] == [f"mesh/machine.yaml:{problem}"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "db.default.svc.cluster.local",
            "db.legacy.example.com",
            "5: `db.legacy.example.com` is no name of the mesh in `default`, where its ServiceEntry selects; "
            "write `<name>.default.svc.cluster.local`",
        ),
        (
            "db.default.svc",
            "db.far.svc",
            "5: `db.far.svc.cluster.local` is no name of the mesh in `default`, where its ServiceEntry selects; "
            "write `<name>.default.svc.cluster.local`",
        ),
        (
            "resolution: STATIC",
            "resolution: DNS",
            "4: `spec`: inside the mesh every machine has its address; set `resolution: STATIC`",
        ),
        (
            "protocol: HTTP",
            "protocol: HTTP, targetPort: 80",
            "4: `spec`: `targetPort` of `http`: say it in `ports` of the WorkloadEntry; remove it",
        ),
        (
            "  resolution",
            '  exportTo: ["."]\n  resolution',
            "4: `spec`: `exportTo` is not supported inside the mesh yet; remove it",
        ),
        (
            "  resolution",
            "  addresses: [192.0.2.1]\n  resolution",
            "4: `spec`: `addresses` is not supported inside the mesh yet; remove it",
        ),
    ],
)
def test_a_name_inside_that_cannot_hold_is_refused_with_its_line(old: str, new: str, problem: str) -> None:
    assert old in ENTRY
    found = problems(folder(entry=ENTRY.replace(old, new)))
    assert [one for one in found if "machine.yaml" not in one] == [f"mesh/inside.yaml:{problem}"]
