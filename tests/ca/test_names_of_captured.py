"""What the agent of a captured instance is told: the names that its proxy knows, with their addresses."""

from __future__ import annotations

import ipaddress

import pytest

from policyd._pb import agent_pb2
from policyd.ca.serving.names import captured_messages
from policyd.errors import IdentityError
from policyd.mesh.virtual import virtual_addresses
from proxy.assignment import captured_of
from tests.xds.resources.folders import mesh_of
from tests.xds.resources.test_captured import EGRESS, ENTRIES, WORKLOADS

FOUND = virtual_addresses(["web.default", "api.default", "db.example.com"])


def told(sidecar: str) -> list[agent_pb2.Captured]:
    mesh = mesh_of({"workloads.yaml": WORKLOADS, "mesh/it.yaml": ENTRIES + sidecar})
    return list(captured_messages(mesh, tuple(mesh.instances.values())))


def packed(name: str) -> list[bytes]:
    return [FOUND[name].v4.packed, FOUND[name].v6.packed]


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        ('["*/*"]', {"web.default": True, "api.default": True, "db.example.com": False, "own.example.com": False}),
        ('["*/web.default"]', {"web.default": True}),
        ('["~/*"]', {}),
    ],
)
def test_it_is_told_what_its_proxy_knows(hosts: str, names: dict[str, bool]) -> None:
    [message] = told(EGRESS.replace('["*/*"]', hosts))

    assert (message.instance, message.namespace, {one.name: one.service for one in message.names}) == (
        "api-v1", "default", names,
    )  # fmt: skip
    own = {"own.example.com": [ipaddress.ip_address("192.0.2.7").packed]}
    assert {one.name: list(one.addresses) for one in message.names} == {
        name: own.get(name) or packed(name) for name in names
    }


def test_who_is_not_captured_is_told_nothing() -> None:
    assert told(EGRESS.replace("IPTABLES", "NONE")) == []


def test_the_agent_understands_it() -> None:
    zone = captured_of(told(EGRESS), {"api-v1"})

    assert zone is not None
    assert (
        zone.names["web"]
        == zone.names["web.default.svc.cluster.local"]
        == (FOUND["web.default"].v4, FOUND["web.default"].v6)
    )
    assert captured_of([], {"api-v1"}) is None


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (told(EGRESS) * 2, "of an agent's instances one is captured at most, as nothing tells their connections apart"),
        ([agent_pb2.Captured(instance="other")], "`other`, which is to be captured, does not run here"),
    ],
)
def test_what_the_agent_refuses(messages: list[agent_pb2.Captured], message: str) -> None:
    with pytest.raises(IdentityError) as error:
        captured_of(messages, {"api-v1"})

    assert str(error.value) == message
