"""Real packets, and where they arrive: what a plan says of them holds, by nftables and both kinds of iptables."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from proxy.capture.kernel import Done, Iptables, Nftables
from proxy.capture.kernel import run as really
from proxy.capture.plan import Plan
from tests.spaces import Space, cable, spaces

pytestmark = pytest.mark.needs("root", "nsenter", "ip")

WHERE = str(Path(__file__).parent / "where.py")
AGENT, AGENTS, USER, GROUP = 990, 1337, 33, 44
PLAN = Plan(
    uids=(AGENT,),
    gids=(AGENTS,),
    outbound_ports=(5432,),
    inbound_ports=(22, 9100),
    networks=(ipaddress.ip_network("10.78.9.0/24"), ipaddress.ip_network("fd78:9::/64")),
    interfaces=("spare*",),
    other_uids=(USER,),
    other_gids=(GROUP,),
)
# addresses of IPv4 and of IPv6: the captured machine's, its neighbour's, and so on
ADDRESSES = {
    "here": ("10.78.0.2", "fd78::2"),
    "there": ("10.78.0.1", "fd78::1"),
    "excluded": ("10.78.9.1", "fd78:9::1"),  # the neighbour's, too
    "by spare": ("10.78.1.1", "fd78:1::1"),  # the neighbour's, on a cable that is excluded
    "here by spare": ("10.78.1.2", "fd78:1::2"),
    "also here": ("10.78.8.1", "fd78:8::1"),
    "behind": ("10.78.2.1", "fd78:2::1"),  # a machine that is reached through the captured one
    "name": ("243.1.2.3", "fd6d:6573:6800::1"),  # of the mesh
    "loopback": ("127.0.0.1", "::1"),
}


@dataclass(frozen=True, slots=True)
class Machines:
    """The captured machine and its neighbour; `rules` sets those of the former."""

    here: Space
    rules: Nftables | Iptables
    asks: dict[str, subprocess.Popen[str]]
    legacy: bool

    def asked(self, who: str, to: str, port: int, family: int, *, udp: bool = False, uid: int = 0, gid: int = 0) -> Any:
        """Who answered, on which port, and whom it was meant for."""
        program, address = self.asks[who], ADDRESSES[to][family == 6]
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(json.dumps(["udp" if udp else "tcp", address, port, uid, gid]) + "\n")
        program.stdin.flush()
        found = json.loads(program.stdout.readline())
        assert isinstance(found, str) or udp or found[2] == [address, port], found
        return tuple(found[:2]) if isinstance(found, list) else found


def where(stack: ExitStack, space: Space, *words: str) -> subprocess.Popen[str]:
    """The program in a network; it ends with the test."""
    command = space.enter(sys.executable, WHERE, *words)
    found = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.enter_context(found)
    stack.callback(found.terminate)
    assert found.stdout is not None
    assert found.stdout.readline() == "ready\n"
    return found


def legacy(run: Callable[..., Done]) -> Callable[..., Done]:
    """iptables as it was before nftables."""
    return lambda command, told="": run((command[0].replace("tables-", "tables-legacy-"), *command[1:]), told)


def network(here: Space, there: Space, behind: Space) -> None:
    """Cables, and who is where."""
    cable(there, "to-here", ["10.78.0.1/24", "fd78::1/64"], here, "eth0", ["10.78.0.2/24", "fd78::2/64"])
    cable(there, "other", ["10.78.1.1/24", "fd78:1::1/64"], here, "spare0", ["10.78.1.2/24", "fd78:1::2/64"])
    cable(behind, "to-here", ["10.78.2.1/24", "fd78:2::1/64"], here, "eth1", ["10.78.2.2/24", "fd78:2::2/64"])
    for space, names in ((there, ["excluded"]), (here, ["also here"])):
        for name in names:
            for address, bits in zip(ADDRESSES[name], (32, 128), strict=True):
                space.has("addr", "add", f"{address}/{bits}", "dev", "lo")
    for space, v4, v6 in (
        (here, "10.78.0.1", "fd78::1"),
        (there, "10.78.0.2", "fd78::2"),
        (behind, "10.78.2.2", "fd78:2::2"),
    ):
        space.has("route", "add", "default", "via", v4)
        space.has("-6", "route", "add", "default", "via", v6)
    here.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


KINDS = [
    pytest.param("nftables", marks=pytest.mark.needs("nft")),
    pytest.param("iptables", marks=pytest.mark.needs("iptables-restore", "ip6tables-restore")),
    pytest.param("iptables-legacy", marks=pytest.mark.needs("iptables-legacy-restore", "ip6tables-legacy-restore")),
]


def rules_of(kind: str, space: Space) -> Nftables | Iptables:
    """The rules of another network."""

    def inside(command: Sequence[str], told: str = "") -> Done:
        return really(space.enter(*command), told)

    return Nftables(inside) if kind == "nftables" else Iptables(legacy(inside) if kind.endswith("legacy") else inside)


@pytest.fixture(scope="module", params=KINDS)
def machines(request: pytest.FixtureRequest) -> Iterator[Machines]:
    with spaces(3) as (here, there, behind), ExitStack() as stack:
        network(here, there, behind)
        neighbours = [one for name in ("there", "excluded", "by spare") for one in ADDRESSES[name]]
        for name, space, at in (
            ("here", here, ADDRESSES["loopback"]), ("there", there, neighbours), ("behind", behind, ()),
        ):  # fmt: skip
            where(stack, space, "serve", name, *at)
        asks = {name: where(stack, space, "ask") for name, space in (("here", here), ("there", there))}
        yield Machines(here, rules_of(request.param, here), asks, request.param == "iptables-legacy")


@pytest.fixture
def captured(machines: Machines) -> Iterator[Machines]:
    machines.rules.install(PLAN)
    yield machines
    machines.rules.remove()


ENVOY, DNS = ("here", 15001), ("here", 15053)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("to", "port", "more", "arrives"),
    [
        ("there", 80, {}, ENVOY),
        ("name", 80, {}, ENVOY),
        ("name", 9999, {}, ENVOY),
        ("there", 80, {"uid": 1000, "gid": 1000}, ENVOY),
        ("there", 80, {"gid": AGENTS}, ("there", 80)),
        ("there", 80, {"uid": AGENT}, ("there", 80)),
        ("there", 80, {"uid": USER}, ("there", 80)),
        ("there", 80, {"gid": GROUP}, ("there", 80)),
        ("there", 5432, {}, ("there", 5432)),
        ("excluded", 80, {}, ("there", 80)),
        ("by spare", 80, {}, ("there", 80)),
        ("loopback", 8080, {}, ("here", 8080)),
        ("here", 8080, {}, ("here", 8080)),
        ("also here", 8080, {}, ("here", 8080)),
        ("there", 53, {}, DNS),
        ("there", 53, {"udp": True}, DNS),
        ("loopback", 53, {"udp": True}, DNS),  # where a resolver of the machine listens
        ("loopback", 53, {}, DNS),
        ("there", 53, {"udp": True, "gid": AGENTS}, ("there", 53)),
        ("there", 53, {"udp": True, "uid": USER}, ("there", 53)),
        ("excluded", 53, {"udp": True}, ("there", 53)),
        ("by spare", 53, {"udp": True}, ("there", 53)),
        ("there", 54, {"udp": True}, ("there", 54)),
    ],
)  # fmt: skip
def test_what_is_sent_arrives_where_the_plan_says(
    captured: Machines, family: int, to: str, port: int, more: dict[str, Any], arrives: object
) -> None:
    assert captured.asked("here", to, port, family, **more) == arrives


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("to", "port", "arrives"),
    [
        ("here", 8080, ("here", 15006)),
        ("here", 9999, ("here", 15006)),  # where nobody listens
        ("here", 15001, ("here", 15006)),
        ("here", 53, ("here", 15006)),
        ("also here", 8080, ("here", 15006)),
        ("here", 22, ("here", 22)),
        ("here", 9100, ("here", 9100)),
        ("here by spare", 8080, ("here", 8080)),
        ("behind", 80, ("behind", 80)),  # only passes
    ],
)
def test_what_comes_in_arrives_where_the_plan_says(
    captured: Machines, family: int, to: str, port: int, arrives: object
) -> None:
    assert captured.asked("there", to, port, family) == arrives


INCLUDED = {
    "ports": replace(PLAN, included_outbound_ports=(80,), included_inbound_ports=(8080,)),
    "senders": replace(PLAN, included_uids=(1000, 1001), included_gids=(1000,)),
    "networks": replace(PLAN, networks=(), included_networks=PLAN.networks),
}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("plan", "asks", "arrives"),
    [
        ("senders", ("here", "there", 80), ("there", 80)),
        ("senders", ("here", "there", 80, {"uid": 1000}), ENVOY),
        ("senders", ("here", "there", 80, {"uid": 1001}), ENVOY),
        ("senders", ("here", "there", 80, {"gid": 1000}), ENVOY),
        ("senders", ("here", "there", 80, {"uid": 1000, "gid": AGENTS}), ("there", 80)),
        ("senders", ("here", "there", 53, {"udp": True}), ("there", 53)),
        ("senders", ("here", "there", 53, {"udp": True, "uid": 1000}), DNS),
        ("senders", ("there", "here", 8080), ("here", 15006)),
        ("ports", ("here", "there", 80), ENVOY),
        ("ports", ("here", "there", 443), ("there", 443)),
        ("ports", ("here", "name", 443), ENVOY),  # names of the mesh have no other address
        ("ports", ("there", "here", 8080), ("here", 15006)),
        ("ports", ("there", "here", 9000), ("here", 9000)),
        ("networks", ("here", "excluded", 80), ENVOY),
        ("networks", ("here", "there", 80), ("there", 80)),
        ("networks", ("here", "name", 80), ENVOY),
        ("networks", ("there", "here", 9000), ("here", 15006)),
    ],
)
def test_where_something_is_included_all_else_is_let_be(
    machines: Machines, family: int, plan: str, asks: tuple[Any, ...], arrives: object
) -> None:
    machines.rules.install(INCLUDED[plan])

    assert machines.rules.show(INCLUDED[plan]).verdict == "as asked"
    who, to, port, *more = asks
    assert machines.asked(who, to, port, family, **(more[0] if more else {})) == arrives


@pytest.mark.parametrize("family", [4, 6])
def test_parts_that_are_left_out_are_not_captured(machines: Machines, family: int) -> None:
    def arrives(plan: Plan) -> list[Any]:
        machines.rules.install(plan)
        questions = machines.asked("here", "there", 53, family, udp=True)
        return [machines.asked("here", "there", 80, family), machines.asked("there", "here", 8080, family), questions]

    assert arrives(replace(PLAN, outbound=False)) == [("there", 80), ("here", 15006), DNS]
    assert arrives(replace(PLAN, inbound=False)) == [ENVOY, ("here", 8080), DNS]
    assert arrives(replace(PLAN, dns=False)) == [ENVOY, ("here", 15006), ("there", 53)]


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_removed_leaves_the_machine_as_it_was(machines: Machines, family: int) -> None:
    others = ["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "443", "-j", "REDIRECT", "--to-ports", "9000"]
    tool = "iptables" if family == 4 else "ip6tables"
    command = [f"{tool}-legacy" if machines.legacy else tool, *others]
    machines.rules.remove()
    machines.here.run(*command)

    def listed() -> list[str]:
        return [line for line in machines.here.run(f"{command[0]}-save").splitlines() if line.startswith("-")]

    was = listed()
    try:
        assert machines.asked("here", "there", 443, family) == ("here", 9000)
        machines.rules.install(PLAN)
        assert machines.asked("here", "there", 443, family) == ENVOY  # rules of others come after
        machines.rules.remove()

        assert machines.asked("here", "there", 443, family) == ("here", 9000)
        assert machines.asked("here", "there", 80, family) == ("there", 80)
        assert machines.asked("there", "here", 8080, family) == ("here", 8080)
        assert machines.asked("here", "there", 53, family, udp=True) == ("there", 53)
        assert listed() == was
        assert machines.rules.show().verdict == "absent"
    finally:
        machines.here.run(*[{"-A": "-D"}.get(word, word) for word in command])


def does(program: subprocess.Popen[str], what: str) -> Any:
    """What who holds a connection has of saying or hearing something."""
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(what + "\n")
    program.stdin.flush()
    return json.loads(program.stdout.readline())


@pytest.fixture(params=KINDS)
def standing(request: pytest.FixtureRequest) -> Iterator[tuple[Space, Space, Nftables | Iptables, ExitStack]]:
    """Two machines on which nothing was captured yet, so that nothing watches connections."""
    with spaces(2) as (here, there), ExitStack() as stack:
        cable(there, "to-here", ["10.78.0.1/24"], here, "eth0", ["10.78.0.2/24"])
        yield here, there, rules_of(request.param, here), stack


def test_who_installs_it_over_the_network_is_not_cut_off(
    standing: tuple[Space, Space, Nftables | Iptables, ExitStack],
) -> None:
    """What the server sends next is the first that the kernel knows of their connection."""
    here, there, rules, stack = standing
    server = where(stack, here, "accept", "22")
    client = where(stack, there, "connect", "10.78.0.2", "22")
    rules.install(PLAN)

    assert [does(server, "say"), does(client, "hear"), does(client, "say"), does(server, "hear")] == [1, 1, 1, 1]


def test_captured_connections_outlive_another_install(
    standing: tuple[Space, Space, Nftables | Iptables, ExitStack],
) -> None:
    here, _, rules, stack = standing
    rules.install(PLAN)
    server = where(stack, here, "accept", "15001")
    client = where(stack, here, "connect", "10.78.0.1", "80")
    rules.install(PLAN)
    rules.install(replace(PLAN, inbound_ports=()))

    assert [does(client, "say"), does(server, "hear"), does(server, "say"), does(client, "hear")] == [1, 1, 1, 1]


@pytest.mark.needs("iptables-legacy-restore")
def test_who_else_changes_rules_at_the_time_is_waited_for() -> None:
    space = Space()
    with Path("/run/xtables.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        freed = threading.Timer(0.5, lambda: fcntl.flock(lock, fcntl.LOCK_UN))
        freed.start()
        rules_of("iptables-legacy", space).install(PLAN)
        freed.join()
    assert rules_of("iptables-legacy", space).show(PLAN).verdict == "as asked"
    space.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_route_by_an_interface_is_enough_for_names_of_the_mesh(kind: str) -> None:
    with spaces(2) as (here, there), ExitStack() as stack:
        cable(there, "to-here", ["10.78.0.1/24"], here, "eth0", ["10.78.0.2/24"])
        here.has("route", "add", "240.0.0.0/5", "dev", "eth0")
        rules_of(kind, here).install(PLAN)
        where(stack, here, "serve", "here")
        machines = Machines(here, rules_of(kind, here), {"here": where(stack, here, "ask")}, legacy=False)

        assert machines.asked("here", "name", 80, 4) == ENVOY
