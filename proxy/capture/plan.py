"""What is captured on a machine, as a value: who is let be, and where all else is redirected to.

Law: pure. Rules hold in their order, the first that matches has the word, and what Envoy and the agent send is let be
before anything else.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from policyd.errors import UsageError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Way = Literal["output", "input"]

OUTBOUND_PORT: Final = 15001  # Istio's numbers
INBOUND_PORT: Final = 15006
DNS_PORT: Final = 15053
DNS: Final = 53
SSH: Final = 22
MOST: Final = 256  # of each list of exceptions
LOOPBACK: Final = "lo"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what has all that is said here is let be, or (`to`) redirected to a port of this machine.

    `way` is that of what is sent from here, or of what comes in; None, "" and 0 are anything.
    """

    way: Way
    says: str
    uid: int | None = None
    gid: int | None = None
    network: Network | None = None
    protocol: Literal["tcp", "udp", ""] = ""
    port: int = 0
    interface: str = ""
    to: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to capture; `uids` and `gids` are those of the agent and its Envoys, the others are exceptions."""

    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    outbound: bool = True
    inbound: bool = True
    dns: bool = True
    outbound_ports: tuple[int, ...] = ()
    inbound_ports: tuple[int, ...] = (SSH,)
    networks: tuple[Network, ...] = ()
    other_uids: tuple[int, ...] = ()
    other_gids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """A plan that would lead Envoy to itself, or capture nothing, is none."""
        if not self.uids and not self.gids:
            raise UsageError(
                "nothing tells the agent's own traffic from what is to be captured",
                remedy="name the user or the group that it runs as with --proxy-user or --proxy-group",
            )
        if not (self.outbound or self.inbound or self.dns):
            raise UsageError("nothing is left to capture", remedy="leave one of the --no options out")
        if self.dns and DNS in self.outbound_ports:
            raise UsageError(f"port {DNS} is excluded and captured", remedy="write --no-dns instead")
        lists = (self.outbound_ports, self.inbound_ports, self.networks, self.other_uids, self.other_gids)
        if any(len(one) > MOST for one in lists):
            raise UsageError(f"there are more than {MOST} exceptions of one kind", remedy="name wider ones")

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules in their order."""
        return (*(self._output() if self.outbound or self.dns else ()), *(self._input() if self.inbound else ()))

    @property
    def digest(self) -> str:
        """What tells this plan from others."""
        return digest((rule.way, rule.says) for rule in self.rules)

    def _output(self) -> Iterator[Rule]:
        for uid in self.uids:
            yield Rule("output", f"let be what user {uid} sends: the agent and its Envoys", uid=uid)
        for gid in self.gids:
            yield Rule("output", f"let be what group {gid} sends: the agent and its Envoys", gid=gid)
        for uid in self.other_uids:
            yield Rule("output", f"let be what user {uid} sends", uid=uid)
        for gid in self.other_gids:
            yield Rule("output", f"let be what group {gid} sends", gid=gid)
        for network in self.networks:
            yield Rule("output", f"let be what goes to {network}", network=network)
        protocols: tuple[Literal["udp", "tcp"], ...] = ("udp", "tcp") if self.dns else ()
        for protocol in protocols:
            says = f"questions of DNS by {protocol} to the agent, at {DNS_PORT}"
            yield Rule("output", says, protocol=protocol, port=DNS, to=DNS_PORT)
        yield Rule("output", "let be what stays on this machine", interface=LOOPBACK)
        for port in self.outbound_ports:
            yield Rule("output", f"let be what goes to port {port}", protocol="tcp", port=port)
        if self.outbound:
            says = f"all other connections to Envoy, at {OUTBOUND_PORT}"
            yield Rule("output", says, protocol="tcp", to=OUTBOUND_PORT)

    def _input(self) -> Iterator[Rule]:
        yield Rule("input", "let be what stays on this machine", interface=LOOPBACK)
        for port in self.inbound_ports:
            yield Rule("input", f"let be what comes to port {port}", protocol="tcp", port=port)
        says = f"all other connections to Envoy, at {INBOUND_PORT}"
        yield Rule("input", says, protocol="tcp", to=INBOUND_PORT)


def digest(rules: Iterable[tuple[Way, str]]) -> str:
    """What tells rules from others, by all that is said of them."""
    return hashlib.sha256("\n".join(f"{way} {says}" for way, says in rules).encode()).hexdigest()[:16]


def mark(digest: str) -> str:
    """What stands in front of installed rules, so that it is known which they should be."""
    return f"policyd capture {digest}"


def readable(plan: Plan) -> str:
    """The plan for people."""
    titles = {"output": "what is sent from here", "input": "what comes in"}
    lines = []
    for way, title in titles.items():
        rules = [rule for rule in plan.rules if rule.way == way]
        lines += [f"{title}:", *(f"  {number}. {rule.says}" for number, rule in enumerate(rules, 1))] if rules else []
    return "\n".join((*lines, f"plan {plan.digest}"))
