"""WorkloadGroups: what machines have in common, and which instances are asked whether they answer."""

from __future__ import annotations

import pytest

from policyd.mesh.istio.probe import HttpGet, Probe, ProbeHeader
from policyd.mesh.locality import parse_locality
from policyd.mesh.probes import probed_port
from policyd.spiffe import SpiffeId
from tests.mesh.sample import GOOD, WORKLOADS, meshed, problems

GROUP = """\
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: db}
spec:
  metadata:
    labels: {app: db}
    annotations: {policyd/inboundPort: "25006", other/key: x}
  template:
    labels: {tier: data}
    ports: {http: 8306}
    serviceAccount: db-vm
    locality: eu/north
    weight: 3
  probe:
    initialDelaySeconds: 5
    timeoutSeconds: 3
    periodSeconds: 4
    successThreshold: 2
    failureThreshold: 1
    httpGet: {path: /healthy?deep=1, port: 3306, scheme: HTTPS, httpHeaders: [{name: X-Probe, value: "1"}]}
"""
MACHINES = """\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: db-1}
spec: {address: 192.0.2.10, labels: {app: db}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: db-2, annotations: {policyd/inboundPort: "26006"}}
spec:
  address: 192.0.2.11
  labels: {app: db, tier: cache}
  ports: {http: 9306}
  serviceAccount: db-own
  locality: us/west
  weight: 5
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db}
spec:
  hosts: [db.default.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{number: 3306, name: http, protocol: HTTP}]
  resolution: STATIC
  workloadSelector: {labels: {app: db}}
"""


def folder(group: str = GROUP, **more: str) -> dict[str, str]:
    return {**GOOD, "mesh/group.yaml": group, "mesh/machines.yaml": MACHINES, **more}


def test_what_a_machine_leaves_open_its_group_says() -> None:
    mesh = meshed(folder())
    one, two = mesh.instances["db-1"], mesh.instances["db-2"]

    assert (one.labels, one.ports[0].app_port, one.ports[0].inbound_port, one.weight) == (
        {"app": "db", "tier": "data"},
        8306,
        25006,
        3,
    )
    assert (one.workload, one.locality) == (
        SpiffeId.workload("cluster.local", "default", "db-vm"),
        parse_locality("eu/north"),
    )
    assert (two.labels, two.ports[0].app_port, two.ports[0].inbound_port, two.weight) == (
        {"app": "db", "tier": "cache"},
        9306,
        26006,
        5,
    )
    assert (two.workload, two.locality) == (
        SpiffeId.workload("cluster.local", "default", "db-own"),
        parse_locality("us/west"),
    )


def test_all_of_a_group_are_asked_and_nobody_else() -> None:
    mesh = meshed(folder())
    header = ProbeHeader(name="x-probe", value="1")
    wanted = Probe(
        http_get=HttpGet(path="/healthy?deep=1", port=3306, scheme="HTTPS", http_headers=(header,)),
        initial_delay_seconds=5,
        timeout_seconds=3,
        period_seconds=4,
        success_threshold=2,
        failure_threshold=1,
    )
    assert {name: one.probe for name, one in mesh.instances.items() if one.probe} == {"db-1": wanted, "db-2": wanted}


def test_a_group_may_be_for_workloads_of_the_file_too() -> None:
    workloads = WORKLOADS.replace("{version: v1}", "{version: v1, tier: fast}")
    group = """\
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: api}
spec:
  template: {labels: {version: v1}, serviceAccount: fast, weight: 2, locality: eu}
  probe: {tcpSocket: {port: 8080}}
"""
    mesh = meshed({**GOOD, "workloads.yaml": workloads, "mesh/group.yaml": group, "groups.yaml": "groups: {}\n"})
    one, other = mesh.instances["api-v1"], mesh.instances["api-v2"]

    assert one.labels == {"app": "api", "version": "v1", "tier": "fast"}
    assert (str(one.workload), one.weight) == ("spiffe://cluster.local/ns/default/sa/fast", 2)
    assert one.probe is not None
    assert (one.probe.period_seconds, one.probe.timeout_seconds, one.probe.failure_threshold) == (10, 1, 3)
    assert (str(other.workload), other.weight, other.probe) == ("spiffe://cluster.local/ns/default/sa/api", 1, None)


def test_the_port_of_the_service_is_where_the_application_listens() -> None:
    one = meshed(folder()).instances["db-1"]
    assert (probed_port(one, 3306), probed_port(one, 9000)) == (8306, 9000)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "labels: {app: db}",
            "labels: {app: bd}",
            "6: the WorkloadGroup `default/db` is for no instance; "
            "no machine registers itself here: write a WorkloadEntry with these labels for each",
        ),
        (
            "  metadata:\n    labels: {app: db}\n",
            "  metadata:\n",
            "8: the WorkloadGroup `default/db` is for no instance; "
            "no machine registers itself here: write a WorkloadEntry with these labels for each",
        ),
        (
            "    labels: {tier: data}",
            "    labels: {tier: data}\n    address: 192.0.2.1",
            "10: field `address` of WorkloadGroup is not supported in `spec.template`; "
            "it is each machine's own; write it into the WorkloadEntry",
        ),
        (
            "    weight: 3",
            "    network: far",
            "13: field `network` of WorkloadGroup is not supported in `spec.template`; "
            "every proxy must reach a machine's `address` directly; take it out",
        ),
        (
            "policyd/inboundPort",
            "policyd/port",
            "4: `spec`: `policyd/port` is no annotation of ours; known are `policyd/inboundPort` and "
            "`policyd/outboundPort`",
        ),
        (
            "    httpGet: {path",
            "    tcpSocket: {port: 1}\n    httpGet: {path",
            "14: `spec.probe`: give exactly one of `httpGet`, `tcpSocket`, `exec` and `grpc`",
        ),
        ("timeoutSeconds: 3", "timeoutSeconds: 0", "16: `spec.probe.timeoutSeconds` must be at least 1, not the "
         "number 0"),
        (
            "path: /healthy?deep=1",
            'path: "/a b"',
            "20: `spec.probe.httpGet.path`: `/a b` is no path; start it with a slash, without spaces",
        ),
        (
            "httpGet: {path: /healthy?deep=1, port: 3306, scheme: HTTPS, "
            'httpHeaders: [{name: X-Probe, value: "1"}]}',
            "exec: {command: []}",
            "20: `spec.probe.exec.command` must have at least 1 entries, not an empty list",
        ),
    ],
)  # fmt: skip
def test_a_group_that_says_what_cannot_be_is_refused_with_its_line(old: str, new: str, problem: str) -> None:
    assert old in GROUP
    found = problems(folder(GROUP.replace(old, new)))
    assert [one for one in found if "machines.yaml" not in one] == [f"mesh/group.yaml:{problem}"]


def test_nobody_is_for_a_group_without_labels() -> None:
    bare = GROUP.replace("    labels: {app: db}\n", "").replace("    labels: {tier: data}\n", "")
    assert problems(folder(bare)) == [
        "mesh/group.yaml:4: `spec`: it is for no machine; give `metadata.labels`, which its WorkloadEntries have too"
    ]


def test_a_machine_is_of_one_group() -> None:
    other = GROUP.replace("name: db}", "name: more}")
    assert problems(folder(**{"mesh/more.yaml": other})) == [
        "mesh/more.yaml:6: `db-1` is of the WorkloadGroup `default/db` already; give one of both further labels"
    ]
