"""Captured instances: where connections are redirected to, and by which names and addresses they are routed."""

from __future__ import annotations

from typing import Any

import pytest

from policyd.envoy_api import CLUSTER, LISTENER, ROUTE
from policyd.mesh.virtual import virtual_addresses
from policyd.xds.agreed import SDS_CLUSTER
from policyd.xds.resources.build import build_snapshots
from policyd.xds.snapshot import Snapshot, check_snapshot
from tests.xds.resources.folders import CONTROL, mesh_of
from tests.xds.resources.test_build import shown

WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80}
  api-v1:
    service: api
    outboundPort: 15001
    ports:
      - {port: 9080, name: http-main, inboundPort: 15006, appPort: 9081}
      - {port: 9000, name: tcp-raw, inboundPort: 15106, appPort: 9000}
      - {port: 9443, name: tls-own, inboundPort: 15107, appPort: 9443}
"""
ENTRIES = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db}
spec:
  hosts: [db.example.com]
  ports: [{number: 5432, name: tcp, protocol: TCP}, {number: 80, name: http, protocol: HTTP}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: own}
spec:
  hosts: [own.example.com]
  addresses: [192.0.2.7]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
---
"""
EGRESS = """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: api}
spec:
  workloadSelector: {labels: {app: api}}
  egress: [{hosts: ["*/*"], captureMode: IPTABLES}]
"""
INGRESS = """\
  ingress:
    - {port: {number: 9080}, captureMode: IPTABLES}
    - {port: {number: 9000}, captureMode: IPTABLES}
    - {port: {number: 9443}}
"""


def snapshots(sidecar: str, workloads: str = WORKLOADS) -> dict[str, Snapshot]:
    made = build_snapshots(mesh_of({"workloads.yaml": workloads, "mesh/it.yaml": ENTRIES + sidecar}), CONTROL)
    return {name: check_snapshot(made[name], static_clusters=(SDS_CLUSTER,)) for name in made}


def captured(sidecar: str = EGRESS + INGRESS, workloads: str = WORKLOADS) -> Snapshot:
    return snapshots(sidecar, workloads)["api-v1"]


def filters(chain: dict[str, Any]) -> list[str]:
    return [one["name"].rpartition(".")[2] for one in chain["filters"]]


@pytest.mark.parametrize(
    ("sidecar", "workloads", "names"),
    [
        (EGRESS, WORKLOADS, {"captured", "captured/6", "inbound", "inbound/9000", "inbound/9443"}),
        (EGRESS + INGRESS, WORKLOADS, {"captured", "captured/6", "captured-inbound", "captured-inbound/6",
                                       "inbound/9000", "inbound/9443"}),
        (EGRESS, WORKLOADS.replace("15001", "15101"), {"captured", "captured/6", "outbound", "inbound", "inbound/9000",
                                                       "inbound/9443"}),
        (EGRESS.replace("IPTABLES", "NONE"), WORKLOADS, {"outbound", "inbound", "inbound/9000", "inbound/9443"}),
    ],
)  # fmt: skip
def test_a_port_is_opened_once_whoever_wants_it(sidecar: str, workloads: str, names: set[str]) -> None:
    listeners = captured(sidecar, workloads).of(LISTENER)

    assert {name.removeprefix("api-v1/") for name in listeners if name.startswith("api-v1/")} == names


def test_connections_are_told_apart_by_what_is_said_first() -> None:
    listener = shown(captured().of(LISTENER)["api-v1/captured"])
    proxy, http, tls, other = listener["filter_chains"]

    assert [one.get("filter_chain_match") for one in listener["filter_chains"]] == [
        {"prefix_ranges": [{"address_prefix": "127.0.0.1", "prefix_len": 32}]},
        {"application_protocols": ["http/1.0", "http/1.1", "h2c"], "transport_protocol": "raw_buffer"},
        {"transport_protocol": "tls"},
        {"transport_protocol": "raw_buffer"},
    ]
    assert [filters(one) for one in (proxy, http, tls, other)] == [
        ["http_connection_manager"],
        ["http_connection_manager"],
        ["set_filter_state", "tcp_proxy"],
        ["set_filter_state", "tcp_proxy"],
    ]
    assert [one["filters"][-1]["typed_config"]["tunneling_config"]["hostname"] for one in (tls, other)] == [
        "%REQUESTED_SERVER_NAME%:%DOWNSTREAM_LOCAL_PORT%",
        "%DOWNSTREAM_LOCAL_ADDRESS%",
    ]
    secret, *rest = (
        [one["name"] for one in chain["filters"][0]["typed_config"]["http_filters"]] for chain in (proxy, http)
    )
    assert (secret[0], secret[1:]) == ("envoy.filters.http.basic_auth", rest[0])


def test_nobody_waits_for_a_client_where_the_server_may_speak_first() -> None:
    original, *looks = shown(captured().of(LISTENER)["api-v1/captured"])["listener_filters"]
    disabled = [
        [one["destination_port_range"]["start"] for one in look["filter_disabled"]["or_match"]["rules"]]
        for look in looks
    ]

    assert original["name"] == "envoy.filters.listener.original_dst"
    assert disabled == [[25, 53, 3306, 5432, 9000, 27017]] * 2


def test_each_port_of_the_workload_leads_to_what_it_has() -> None:
    listener = shown(captured().of(LISTENER)["api-v1/captured-inbound"])

    assert listener["address"]["socket_address"] == {"address": "0.0.0.0", "port_value": 15006}
    # 9443 is not captured: peers reach it at the sidecar's own port alone
    assert [one["filter_chain_match"]["destination_port"] for one in listener["filter_chains"]] == [
        9000, 9080, 9081, 15006, 15106, 15107,
    ]  # fmt: skip
    assert all("transport_socket" in one for one in listener["filter_chains"])


def test_routes_know_names_by_their_addresses_too() -> None:
    found = virtual_addresses(["api.default", "db.example.com"])
    hosts = {one["name"]: one["domains"] for one in shown(captured().of(ROUTE)["outbound"])["virtual_hosts"]}
    api, db = found["api.default"].spelled, found["db.example.com"].spelled

    assert set(hosts["api.default:9000"]) >= {f"{one}:9000" for one in api}
    assert set(hosts["api.default:9080"]) >= {*api, *(f"{one}:9080" for one in api)}
    assert set(hosts["db.example.com:5432"]) >= {f"{one}:5432" for one in db}
    assert hosts["own.example.com:443"] == ["own.example.com:443", "192.0.2.7:443"]


def test_who_is_not_captured_is_sent_what_it_was() -> None:
    others = snapshots(EGRESS)["web-v1"], snapshots(EGRESS.replace("IPTABLES", "NONE"))["web-v1"]

    assert others[0].resources == others[1].resources
    assert "inner/captured" in captured().of(CLUSTER)
    assert "inner/captured" not in others[0].of(CLUSTER)
