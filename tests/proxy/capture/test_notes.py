"""What of a plan will not do what its author expects, told when it is installed."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path

import pytest

from proxy.capture.notes import notes
from proxy.capture.plan import Plan
from tests.spaces import Space

PLAN = Plan(uids=(990,), networks=(ipaddress.ip_network("10.0.0.0/8"),))
PROXY = str(Path(sys.executable).parent / "policyd-proxy")
ASKS_ITSELF = (
    "the resolver `127.0.0.1` runs on this machine, and what it asks is led to the agent, who asks it: exclude the "
    "user that it runs as, by --exclude-user"
)
EXCLUDED = "the resolver `10.1.1.1` is in 10.0.0.0/8, which is excluded: it is asked for names of the mesh, too"
NO_ROUTE = (
    "nothing leads from this machine to 240.0.0.0/5, where names of the mesh have their addresses: add a default "
    "route, or one by a network's interface, as in `ip route add 240.0.0.0/5 dev eth0`"
)


@pytest.mark.parametrize(
    ("plan", "resolvers", "stub", "told"),
    [
        (PLAN, ("192.0.2.1", "fe80::1%eth0"), False, []),
        (PLAN, ("127.0.0.53",), True, []),
        (PLAN, ("127.0.0.1",), False, [ASKS_ITSELF]),
        (Plan(uids=(990,), other_uids=(53,)), ("127.0.0.1",), False, []),
        (Plan(uids=(990,), included_uids=(1000,)), ("127.0.0.1",), False, []),  # which is nobody's who is captured
        (PLAN, ("192.0.2.1", "10.1.1.1"), False, [EXCLUDED]),
        (Plan(uids=(990,), dns=False, networks=PLAN.networks), ("10.1.1.1",), False, []),
        (PLAN, (), False, []),
    ],
)
def test_resolvers_that_a_plan_forgets_are_told(
    plan: Plan, resolvers: tuple[str, ...], stub: bool, told: list[str]
) -> None:
    assert list(notes(plan, resolvers, stub=stub, leads=lambda _: True)) == told


def test_names_without_a_route_are_told() -> None:
    assert list(notes(PLAN, (), stub=False, leads=lambda _: False)) == [NO_ROUTE]
    assert list(notes(Plan(uids=(990,), outbound=False), (), stub=False, leads=lambda _: False)) == []


@pytest.mark.needs("root", "nft", "nsenter", "ip")
def test_a_machine_without_a_route_is_told_when_it_is_captured() -> None:
    space = Space()
    try:
        assert f"note: {NO_ROUTE}\n" in space.run(PROXY, "capture", "install", "--proxy-group", "1337")
        space.has("link", "add", "eth0", "type", "veth", "peer", "name", "other")
        for name in ("eth0", "other"):
            space.has("link", "set", name, "up")
        space.has("addr", "add", "10.0.0.1/24", "dev", "eth0")
        space.has("route", "add", "240.0.0.0/5", "dev", "eth0")
        assert NO_ROUTE not in space.run(PROXY, "capture", "install", "--proxy-group", "1337")
    finally:
        space.close()
