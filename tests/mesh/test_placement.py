"""Placement: ports that are free, kept while they can be, and never given twice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.errors import InvalidInput
from policyd.mesh.declaration import Declaration
from policyd.mesh.declare import declare
from policyd.mesh.model import Listen
from policyd.mesh.placement import Placement, PortPlace, SidecarPlace, assumed, place

TEXT = "workloads: {a: {service: a, port: 80}, b: {service: b, port: 80}}\ngateways: {edge: {listen: [8080, 8443]}}\n"
PLACED = Placement(
    {"a": SidecarPlace(20000, 20001, 20002, "s0"), "b": SidecarPlace(20003, 20004, 20005, "s1")},
    {"edge": (Listen(8080, 8080), Listen(8443, 8443))},
)


def declared(text: str = TEXT) -> Declaration:
    return declare({"workloads.yaml": text})


def secrets() -> Iterator[str]:
    return (f"s{n}" for n in count())


def placed(
    text: str = TEXT,
    previous: Placement = Placement(),  # noqa: B008 - it is frozen
    busy: frozenset[int] = frozenset(),
    held: frozenset[int] = frozenset(),
) -> Placement:
    """Place with the ports `busy` in use by others."""
    secret = secrets()
    return place(
        declared(text),
        previous,
        is_free=lambda port: port not in busy | held,
        candidates=count(20000),
        secret=lambda: next(secret),
        held=held,
    )


def test_every_instance_gets_ports_and_a_secret() -> None:
    assert placed() == PLACED


def test_secrets_are_not_shown() -> None:
    assert "s0" not in repr(PLACED)


def test_ports_in_use_are_passed_over() -> None:
    assert placed(busy=frozenset({20000, 20002})).sidecars["a"] == SidecarPlace(20001, 20003, 20004, "s0")


def test_a_taken_listen_port_is_replaced() -> None:
    assert placed(busy=frozenset({8080})).gateways == {"edge": (Listen(8080, 20000), Listen(8443, 8443))}


def test_what_was_placed_stays() -> None:
    text = "workloads: {c: {service: c, port: 80}, b: {service: b, port: 80}}\n"
    again = placed(text, PLACED)
    assert again.sidecars["b"] == PLACED.sidecars["b"]
    assert again.sidecars["c"] == SidecarPlace(20006, 20007, 20008, "s0")
    assert again.gateways == {}


def test_a_newcomer_gets_no_port_that_our_own_processes_hold() -> None:
    text = "workloads: {c: {service: c, port: 80}, b: {service: b, port: 80}}\n"
    again = placed(text, PLACED, held=PLACED.ports())
    assert again.sidecars["b"] == PLACED.sidecars["b"]
    assert not {20000, 20001, 20002} & again.ports()


def test_ports_that_our_own_processes_hold_stay() -> None:
    assert placed(previous=PLACED, held=PLACED.ports()) == PLACED


def test_a_port_that_someone_took_meanwhile_is_replaced_and_the_secret_kept() -> None:
    again = placed(previous=PLACED, busy=frozenset({20001}))
    assert again.sidecars["a"].inbound_port not in (20001, *PLACED.ports())
    assert again.sidecars["a"].proxy_secret == "s0"


def test_a_gateway_returns_to_its_declared_port_when_it_starts_anew() -> None:
    moved = Placement({}, {"edge": (Listen(8080, 21000), Listen(8443, 8443))})
    assert placed(previous=moved).gateways["edge"][0] == Listen(8080, 8080)
    assert placed(previous=moved, busy=frozenset({8080})).gateways["edge"][0] == Listen(8080, 21000)
    assert placed(previous=moved, held=moved.ports()).gateways["edge"][0] == Listen(8080, 21000)


def test_given_ports_are_used_and_given_to_no_one_else() -> None:
    text = "workloads: {a: {service: a, port: 80}, b: {service: b, port: 80, appPort: 20000, inboundPort: 20002}}\n"
    found = placed(text)
    assert found.sidecars["b"] == SidecarPlace(20000, 20002, 20005, "s1")
    assert found.sidecars["a"] == SidecarPlace(20001, 20003, 20004, "s0")


def test_a_given_port_in_use_is_a_problem() -> None:
    with pytest.raises(InvalidInput) as error:
        placed("workloads:\n  a: {service: a, port: 80,\n    appPort: 9000}\n", busy=frozenset({9000}))
    assert str(error.value) == (
        "workloads.yaml:3: port 9000 is in use by another program; free it or leave the port out"
    )


def test_a_workload_on_another_machine_needs_its_ports_given() -> None:
    with pytest.raises(InvalidInput) as error:
        placed("workloads: {a: {service: a, port: 80, address: 10.0.0.7, appPort: 1, outboundPort: 2}}\n")
    assert str(error.value) == (
        "workloads.yaml:1: `inboundPort` of `a` is missing, which a workload at `10.0.0.7` needs; add it"
    )


def test_no_free_port_is_a_problem_and_no_endless_search() -> None:
    with pytest.raises(InvalidInput) as error:
        place(declared(), Placement(), is_free=lambda _: False, candidates=count(1), secret=lambda: "")
    assert len(error.value.problems) == 8


def test_offline_questions_need_no_machine() -> None:
    found = assumed(declared())
    assert found.gateways == PLACED.gateways
    assert {place.proxy_secret for place in found.sidecars.values()} == {""}


@given(st.frozensets(st.integers(20000, 20040)), st.frozensets(st.integers(20000, 20040)))
def test_no_port_is_given_twice_or_while_in_use(first: frozenset[int], second: frozenset[int]) -> None:
    previous = placed(busy=first)
    found = placed(previous=previous, busy=second)
    assert len(found.ports()) == 8
    assert not found.ports() & second


SEVERAL = "workloads: {a: {service: a, ports: [{port: 80}, {port: 90, name: tcp}]}}\n"


def test_each_port_of_a_workload_has_its_place() -> None:
    assert placed(SEVERAL).sidecars["a"] == SidecarPlace(20000, 20001, 20002, "s0", (PortPlace(90, 20003, 20004),))


def test_a_port_keeps_its_place_wherever_in_the_list_it_moves() -> None:
    before = placed(SEVERAL)
    turned = SEVERAL.replace("[{port: 80}, ", "[{port: 70}, ").replace("tcp}]", "tcp}, {port: 80, name: x}]")
    after = placed(turned, before, held=before.ports()).sidecars["a"]

    assert after.ports == (PortPlace(70, 20005, 20006), PortPlace(90, 20003, 20004), PortPlace(80, 20000, 20001))


def test_a_place_of_before_there_were_several_ports_is_that_of_the_first() -> None:
    found = placed(SEVERAL, PLACED, held=PLACED.ports()).sidecars["a"]

    assert found.ports[0] == PortPlace(80, 20000, 20001)


def test_a_further_port_on_another_machine_needs_its_places_given() -> None:
    with pytest.raises(InvalidInput) as error:
        placed(
            "workloads:\n  a:\n    service: a\n    address: 10.0.0.7\n    outboundPort: 3\n"
            "    ports: [{port: 80, appPort: 1, inboundPort: 2}, {port: 90, name: tcp, appPort: 4}]\n"
        )
    assert str(error.value) == (
        "workloads.yaml:6: `ports[1].inboundPort` of `a` is missing, which a workload at `10.0.0.7` needs; add it"
    )


def test_what_stays_where_it_is_is_the_very_same() -> None:
    before = placed()
    again = placed(previous=before, held=before.ports())
    assert again == before
    assert all(again.sidecars[name] is before.sidecars[name] for name in ("a", "b"))


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        ({"b: {service: b, port: 80}": "b: {service: b, port: 80, appPort: 20001}"}, ["inbound_port"]),
        ({"listen: [8080, 8443]": "listen: [20000, 20002]"}, ["app_port", "outbound_port"]),
    ],
)
def test_one_that_stays_gives_way_to_who_is_given_its_port(change: dict[str, str], moves: list[str]) -> None:
    before, text = placed(), TEXT
    for old, new in change.items():
        text = text.replace(old, new)
    was, now = before.sidecars["a"], placed(text, before, held=before.ports()).sidecars["a"]
    fields = ("app_port", "inbound_port", "outbound_port")
    assert [name for name in fields if getattr(was, name) != getattr(now, name)] == moves
