"""Captured instances: Sidecars ask for it, one on each machine, and addresses follow from names alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.mesh.captured import Captured, captured
from policyd.mesh.declare import declare
from policyd.mesh.istio.sidecar import Sidecar
from policyd.mesh.virtual import V4, V6, virtual_addresses
from tests.mesh.sample import GOOD, meshed, problems
from tests.mesh.test_scope import setting

EGRESS = 'egress: [{hosts: ["*/*"], captureMode: IPTABLES}]'
INGRESS = "ingress: [{port: {number: 8080}, captureMode: IPTABLES}]"
BOTH = f"{EGRESS}, {INGRESS}"


def folder(*documents: str, workloads: str = GOOD["workloads.yaml"]) -> dict[str, str]:
    return {**GOOD, "workloads.yaml": workloads, "mesh/sidecars.yaml": "".join(documents)}


@pytest.mark.parametrize(
    ("documents", "found"),
    [
        ([], Captured()),
        ([setting(EGRESS)], Captured(outbound=True)),
        ([setting(INGRESS)], Captured(inbound=frozenset({8080}))),
        ([setting(BOTH)], Captured(outbound=True, inbound=frozenset({8080}))),
        ([setting(EGRESS.replace("IPTABLES", "NONE"))], Captured()),
        ([setting(EGRESS.replace("IPTABLES", "DEFAULT"))], Captured()),
        ([setting(EGRESS, "app: web")], Captured()),
        # the narrowest that says how it calls has the word
        ([setting(EGRESS, ""), setting('egress: [{hosts: ["./*"]}]', name="own")], Captured()),
    ],
)
def test_a_sidecar_asks_for_it(documents: list[str], found: Captured) -> None:
    sidecars = [one.resource for one in declare(folder(*documents)).of(Sidecar)]

    assert captured(sidecars, meshed(GOOD).instances["api-v1"]) == found


def test_names_have_addresses_where_somebody_is_captured() -> None:
    mesh = meshed(folder(setting(EGRESS)))

    assert set(mesh.virtual) == set(mesh.services)
    assert meshed(GOOD).virtual == {}


@pytest.mark.parametrize(
    ("document", "changed", "expected"),
    [
        (setting(EGRESS, "app: api"), {},
         ["5: `api-v2` and `api-v1` are both captured at `127.0.0.1`, and nothing tells them apart; select one of "
          "them, or move one"]),
        (setting(EGRESS), {"command: [web]": "outboundPort: 15001"},
         ["5: `web-v1` has port 15001, where the capture of `api-v1` listens; give it another one"]),
        (setting(EGRESS), {"labels: {version: v1}": "appPort: 15053, labels: {version: v1}"},
         ["5: `api-v1` has port 15053, where the capture of `api-v1` listens; give it another one"]),
        (setting(EGRESS), {"[8000, 8001]": "[8000, 15006]"},
         ["5: `edge` has port 15006, where the capture of `api-v1` listens; give it another one"]),
        (setting(EGRESS), {"labels: {version: v1}": "outboundPort: 15006, labels: {version: v1}"},
         ["5: `api-v1` has port 15006, where the capture of `api-v1` listens; give it another one"]),
        (setting('egress: [{hosts: ["./*"]}, {hosts: ["a/*"], captureMode: IPTABLES}]'), {},
         ["5: `spec`: some of `egress` is captured and some is not, and what an application sends is one or the other; "
          "write the same `captureMode` everywhere"]),
    ],
)  # fmt: skip
def test_what_could_not_be_captured_is_refused(document: str, changed: dict[str, str], expected: list[str]) -> None:
    workloads = GOOD["workloads.yaml"]
    for old, new in changed.items():
        assert old in workloads
        workloads = workloads.replace(old, new)

    found = problems(folder(document, workloads=workloads))

    assert [one.removeprefix("mesh/sidecars.yaml:") for one in found] == expected


def test_its_own_ports_are_those_of_the_capture() -> None:
    own = "outboundPort: 15001, inboundPort: 15006, labels: {version: v1}"

    assert meshed(folder(setting(BOTH), workloads=GOOD["workloads.yaml"].replace("labels: {version: v1}", own))).virtual


NAMES = st.sets(st.from_regex(r"[a-z]{1,9}\.[a-z]{1,9}", fullmatch=True), max_size=200)


@given(NAMES, NAMES)
def test_addresses_follow_from_names_alone(some: set[str], more: set[str]) -> None:
    few, all_ = virtual_addresses(some), virtual_addresses(some | more)

    assert few == {name: all_[name] for name in some}
    assert len({one.v4 for one in all_.values()}) == len({one.v6 for one in all_.values()}) == len(all_)
    assert all(one.v4 in V4 and one.v6 in V6 for one in all_.values())


def test_ten_thousand_names_have_as_many_addresses() -> None:
    found = virtual_addresses(f"service-{number}.default" for number in range(10_000))

    assert len({one.v4 for one in found.values()}) == len({one.v6 for one in found.values()}) == 10_000
