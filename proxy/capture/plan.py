"""What is captured on a machine, as a value: who is let be, and where all else is redirected to.

Law: pure. Rules hold in their order, the first that matches has the word, and what Envoy and the agent send is let be
before anything else.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Final, Literal

from policyd.errors import UsageError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Way = Literal["output", "input"]
Who = tuple[Literal["user", "group"], int]

OUTBOUND_PORT: Final = 15001  # Istio's numbers
INBOUND_PORT: Final = 15006
DNS_PORT: Final = 15053
DNS: Final = 53
SSH: Final = 22
MOST: Final = 256  # of each list
MOST_SENDERS: Final = 32  # that are included; they are one rule, of which nftables takes so many conditions
MOST_SAID: Final = 120  # characters of a comment; nftables takes 128
LOOPBACK: Final = "lo"
OWN: Final = ": the agent and its Envoys"
# where names of the mesh have their addresses (policyd.mesh.virtual)
VIRTUAL: Final = (ipaddress.ip_network("240.0.0.0/5"), ipaddress.ip_network("fd6d:6573:6800::/48"))
_INTERFACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}|[A-Za-z0-9][A-Za-z0-9_.-]{0,13}\*")
_CONDITIONS: Final = ("uid", "gid", "others", "network", "port", "interface", "stands", "passes")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what has all that is said here is let be, or (`to`) redirected to a port of this machine.

    `way` is that of what is sent from here, or of what comes in; None, "", 0 and False are anything. `stands`: what
    begins no connection; `passes`: what is for another machine; `others`: what none of these sends; an `interface` may
    end in `*`; `own` only says why.
    """

    way: Way
    uid: int | None = None
    gid: int | None = None
    others: tuple[Who, ...] = ()
    network: Network | None = None
    protocol: Literal["tcp", "udp", ""] = ""
    port: int = 0
    interface: str = ""
    stands: bool = False
    passes: bool = False
    to: int = 0
    own: bool = False

    @property
    def says(self) -> str:
        """What it does, in words; two rules of a way that do not do the same say other things."""
        given = [name for name in _CONDITIONS if self._has(name)]
        return (self._known(given[0] if given else "") if len(given) < 2 else "") or self._spelled_out()

    @property
    def comment(self) -> str:
        """The same as an installed rule says it, cut where it is too long for that."""
        said = self.says
        return said if len(said) <= MOST_SAID else f"{said[:96]}... {digest([(self.way, said)])}"

    def _has(self, name: str) -> bool:
        value = getattr(self, name)
        return value is not None if name in ("uid", "gid") else bool(value)  # root is somebody, too

    def _known(self, by: str) -> str:
        goes = "goes" if self.way == "output" else "comes"
        to_port = f"port {self.port}" if self.port else str(self.network)
        match by, self.protocol, self.to:
            case "uid" | "gid", "", 0:
                who = f"user {self.uid}" if by == "uid" else f"group {self.gid}"
                return f"let be what {who} sends{OWN if self.own else ''}"
            case "interface", "", 0:
                by_which = f"{goes} by {self.interface}" if self.interface != LOOPBACK else "stays on this machine"
                return f"let be what {by_which}"
            case "stands", "tcp", 0:
                return "let be connections that stand already"
            case "others", "", 0:
                return f"let be what others send than {', '.join(f'{who} {number}' for who, number in self.others)}"
            case "passes", "", 0:
                return "let be what is for other machines"
            case ("network", "", 0) | ("port", "tcp", 0):
                return f"let be what {goes} to {to_port}"
            case "port", "udp" | "tcp", to if self.port == DNS and to == DNS_PORT:
                return f"questions of DNS by {self.protocol} to the agent, at {to}"
            case "port" | "network", "tcp", to if to:
                return f"connections to {to_port} to Envoy, at {to}"
            case "", "tcp", to if to:
                return f"all other connections to Envoy, at {to}"
        return ""

    def _spelled_out(self) -> str:
        given = [one.name for one in fields(self) if one.name not in ("way", "own") and self._has(one.name)]
        return f"a rule of {', '.join(f'{name} {getattr(self, name)}' for name in given)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to capture; `uids` and `gids` are those of the agent and its Envoys, the others are exceptions.

    Where something is `included`, nothing else is captured that way, but for names of the mesh.
    """

    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    outbound: bool = True
    inbound: bool = True
    dns: bool = True
    outbound_ports: tuple[int, ...] = ()
    inbound_ports: tuple[int, ...] = (SSH,)
    networks: tuple[Network, ...] = ()
    interfaces: tuple[str, ...] = ()
    other_uids: tuple[int, ...] = ()
    other_gids: tuple[int, ...] = ()
    included_outbound_ports: tuple[int, ...] = ()
    included_inbound_ports: tuple[int, ...] = ()
    included_networks: tuple[Network, ...] = ()
    included_uids: tuple[int, ...] = ()
    included_gids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """A plan that would lead Envoy to itself, capture nothing, or contradict itself is none."""
        if not self.uids and not self.gids:
            raise UsageError(
                "nothing tells the agent's own traffic from what is to be captured",
                remedy="name the user or the group that it runs as with --proxy-user or --proxy-group",
            )
        if not (self.outbound or self.inbound or self.dns):
            raise UsageError("nothing is left to capture", remedy="leave one of the --no options out")
        if self.dns and DNS in self.outbound_ports:
            raise UsageError(f"port {DNS} is excluded and captured", remedy="write --no-dns instead")
        self._check_lists()

    def _check_lists(self) -> None:
        lists = [getattr(self, one.name) for one in fields(self)]
        if any(isinstance(one, tuple) and len(one) > MOST for one in lists):
            raise UsageError(f"there are more than {MOST} exceptions of one kind", remedy="name wider ones")
        if len(self._senders()) > MOST_SENDERS:
            message = f"more than {MOST_SENDERS} users and groups are included"
            raise UsageError(message, remedy="include a group that they are in")
        for one in (*self.networks, *self.included_networks):
            if one.prefixlen == 0:
                remedy = "leave it out, or write --no-outbound to capture nothing that is sent"
                raise UsageError(f"`{one}` is every address", remedy=remedy)
        for name in self.interfaces:
            if not _INTERFACE.fullmatch(name) or name == LOOPBACK:
                remedy = "write one as `ip link` shows it, as in `docker0` or `br-*`; loopback is never captured"
                raise UsageError(f"`{name[:40]}` is no interface to exclude", remedy=remedy)
        agents = {*(("user", uid) for uid in self.uids), *(("group", gid) for gid in self.gids)}
        if both := sorted({*self._senders()} & agents):
            raise UsageError(
                f"{both[0][0]} {both[0][1]} is the agent's own and included", remedy="include the application's"
            )
        pairs = (
            ("outbound", self.outbound, self.outbound_ports, self.included_outbound_ports),
            ("inbound", self.inbound, self.inbound_ports, self.included_inbound_ports),
        )
        for way, captured, excluded, included in pairs:
            if doubly := sorted({*excluded} & {*included}):
                raise UsageError(f"{way} port {doubly[0]} is excluded and included", remedy="leave one of them out")
            if not captured and (included or (way == "outbound" and self.included_networks)):
                raise UsageError(f"something is included of what --no-{way} leaves out", remedy="leave one of them out")

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules in their order."""
        return (*(self._output() if self.outbound or self.dns else ()), *(self._input() if self.inbound else ()))

    @property
    def digest(self) -> str:
        """What tells this plan from others."""
        return digest((rule.way, rule.says) for rule in self.rules)

    def _output(self) -> Iterator[Rule]:
        yield from (Rule("output", uid=uid, own=True) for uid in self.uids)
        yield from (Rule("output", gid=gid, own=True) for gid in self.gids)
        yield from (Rule("output", uid=uid) for uid in self.other_uids)
        yield from (Rule("output", gid=gid) for gid in self.other_gids)
        yield from (Rule("output", network=network) for network in self.networks)
        yield from (Rule("output", interface=interface) for interface in self.interfaces)
        if senders := self._senders():
            yield Rule("output", others=senders)
        # else who installs this over the network would be cut off: a server's next packet would count as a beginning
        yield Rule("output", protocol="tcp", stands=True)
        protocols: tuple[Literal["udp", "tcp"], ...] = ("udp", "tcp") if self.dns else ()
        yield from (Rule("output", protocol=protocol, port=DNS, to=DNS_PORT) for protocol in protocols)
        yield Rule("output", interface=LOOPBACK)
        yield from (Rule("output", protocol="tcp", port=port) for port in self.outbound_ports)
        if self.outbound:
            yield from self._included()

    def _senders(self) -> tuple[Who, ...]:
        """Who alone is captured, of those who send; nobody named: everybody is."""
        users: tuple[Who, ...] = tuple(("user", uid) for uid in self.included_uids)
        return (*users, *(("group", gid) for gid in self.included_gids))

    def _included(self) -> Iterator[Rule]:
        ports, networks = self.included_outbound_ports, self.included_networks
        if not ports and not networks:
            yield Rule("output", protocol="tcp", to=OUTBOUND_PORT)
            return
        names = VIRTUAL if self.dns else ()
        networks = tuple(dict.fromkeys((*names, *networks)))
        yield from (Rule("output", protocol="tcp", network=network, to=OUTBOUND_PORT) for network in networks)
        yield from (Rule("output", protocol="tcp", port=port, to=OUTBOUND_PORT) for port in ports)

    def _input(self) -> Iterator[Rule]:
        yield Rule("input", interface=LOOPBACK)
        yield Rule("input", passes=True)
        yield from (Rule("input", interface=interface) for interface in self.interfaces)
        yield from (Rule("input", protocol="tcp", port=port) for port in self.inbound_ports)
        included = self.included_inbound_ports or (0,)
        yield from (Rule("input", protocol="tcp", port=port, to=INBOUND_PORT) for port in included)


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
