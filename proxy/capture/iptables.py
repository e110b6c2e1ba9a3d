"""A plan as iptables has it, where there is no nftables: chains of our own in the table `nat`, and a jump to each.

Law: pure. Each family is one text, which iptables-restore takes as a whole; what was there of ours is replaced.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal

from proxy.capture.found import Installed, State, owned
from proxy.capture.plan import Plan, Rule, Way, digest, mark

_WORDS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "-d": ("network", ipaddress.ip_network),
    "-p": ("protocol", str),
    "--dport": ("port", int),
    "--uid-owner": ("uid", int),
    "--gid-owner": ("gid", int),
    "-o": ("interface", lambda name: name.replace("+", "*")),
    "-i": ("interface", lambda name: name.replace("+", "*")),
}
CHAINS: Final[dict[Way, str]] = {"output": "POLICYD_OUTPUT", "input": "POLICYD_INPUT"}
_HOOKS: Final[dict[Way, str]] = {"output": "OUTPUT", "input": "PREROUTING"}
_SENDERS: Final[dict[Literal["user", "group"], str]] = {"user": "--uid-owner", "group": "--gid-owner"}
_STANDS: Final = ("!", "--tcp-flags", "FIN,SYN,RST,ACK", "SYN")
_PASSES: Final = ("!", "--dst-type", "LOCAL")
_MISSING: Final = re.compile(r"(?:Extension|match|target) [`\"']?(\w+)")
MODULES: Final = {"tcp": "xt_tcpudp", "udp": "xt_tcpudp"}  # all others are called as what they have


def install(plan: Plan, saved: str, family: int) -> str:
    """What iptables-restore --noflush is told of a plan for a family (4 or 6); `saved` is what iptables-save says."""
    return _told(_ended(saved) + _begun(plan, family), CHAINS.values())


def remove(saved: str) -> str:
    """And to be rid of it; "" where there is nothing of ours."""
    there = [chain for chain in CHAINS.values() if f":{chain} " in saved]
    return _told([*_ended(saved), *(f"-X {chain}" for chain in there)], there) if there else ""


def _told(lines: list[str], chains: Iterable[str]) -> str:
    emptied = "".join(f":{chain} - [0:0]\n" for chain in chains)
    return "*nat\n" + emptied + "".join(f"{line}\n" for line in lines) + "COMMIT\n"


def _ended(saved: str) -> list[str]:
    """Take out every jump to chains of ours, as often as it is there."""
    jumps = [f"-A {_HOOKS[way]} -j {chain}" for way, chain in CHAINS.items()]
    return [line.strip().replace("-A", "-D", 1) for line in saved.splitlines() if line.strip() in jumps]


def _begun(plan: Plan, family: int) -> list[str]:
    found = []
    for way, chain in CHAINS.items():
        rules = [rule for rule in rules_of(plan, family) if rule.way == way]
        if rules:
            found.append(f'-A {chain} -m comment --comment "{mark(digest_of(plan, family))}"')
            found += [f"-A {chain} {_rule(rule)}" for rule in rules]
            # in front of who publishes ports: the first that matches wins
            found.append(f"-I {_HOOKS[way]} 1 -j {chain}")
    return found


def digest_of(plan: Plan, family: int) -> str:
    """What tells the part of a plan that is of one family from others."""
    return digest((rule.way, rule.says) for rule in rules_of(plan, family))


def rules_of(plan: Plan, family: int) -> tuple[Rule, ...]:
    """The rules of a plan that a family has."""
    return tuple(rule for rule in plan.rules if rule.network is None or rule.network.version == family)


def _rule(rule: Rule) -> str:
    parts = [
        f"{'-o' if rule.way == 'output' else '-i'} {rule.interface.replace('*', '+')}" if rule.interface else "",
        *(f"-m owner ! {_SENDERS[who]} {number}" for who, number in rule.others),
        f"-d {rule.network}" if rule.network is not None else "",
        f"-m addrtype {' '.join(_PASSES)}" if rule.passes else "",
        f"-p {rule.protocol}" if rule.protocol else "",
        f"-m tcp {' '.join(_STANDS)}" if rule.stands else "",
        f"-m {rule.protocol} --dport {rule.port}" if rule.port else "",
        f"-m owner --uid-owner {rule.uid}" if rule.uid is not None else "",
        f"-m owner --gid-owner {rule.gid}" if rule.gid is not None else "",
        f'-m comment --comment "{rule.comment}"',
        f"-j REDIRECT --to-ports {rule.to}" if rule.to else "-j RETURN",
    ]
    return " ".join(filter(None, parts))


def installed(saved: str) -> State:
    """What is there (iptables-save): each rule with what it does, and chains of ours that nothing leads to."""
    lines = [line.strip() for line in saved.splitlines()]
    found: list[Installed] = []
    faults, notes = [], []
    for way, chain in CHAINS.items():
        rules = [_read(way, line) for line in lines if line.startswith(f"-A {chain} ")]
        jumps = [line for line in lines if line.startswith(f"-A {_HOOKS[way]} ")]
        jump = f"-A {_HOOKS[way]} -j {chain}"
        found += rules
        if rules and jump not in jumps:
            faults.append(f"changed: {way}: nothing leads from {_HOOKS[way]} to {chain}")
        elif not rules and jump in jumps:
            faults.append(f"changed: {way}: {chain} has no rules")
        elif jump in jumps[1:] and jumps[0] != jump:
            notes.append(f"note: {way}: rules of others come first: `{jumps[0][:200]}`")
    return State(tuple(found), tuple(faults), tuple(notes))


def _read(way: Way, line: str) -> Installed:
    words: Sequence[str] = shlex.split(line)[2:]
    comment = words[words.index("--comment") + 1] if "--comment" in words[:-1] else ""
    done: dict[str, Any] = {}
    try:
        while words:
            words = _one(way, words, done)
    except (ValueError, KeyError, IndexError):
        return Installed(way, comment)  # somebody's, in words that we never use
    if "ends" not in done:
        return Installed(way, comment, idle=not done)
    done.pop("ends")
    return Installed(way, comment, owned(Rule(way, **done), comment))


def _one(way: Way, words: Sequence[str], done: dict[str, Any]) -> Sequence[str]:
    """Take what the first words mean, and return the rest; raises ValueError, KeyError or IndexError."""
    first, second = words[0], words[1]
    if (first, second) == ("-m", "comment"):
        return words[4:]
    if first == "-m" and second in ("tcp", "udp", "owner", "addrtype"):
        return words[2:]
    if tuple(words[:4]) == _STANDS:
        done["stands"] = True
        return words[4:]
    if tuple(words[:3]) == _PASSES:
        done["passes"] = True
        return words[3:]
    for who, word in _SENDERS.items():
        if (first, second) == ("!", word):
            done["others"] = (*done.get("others", ()), (who, int(words[2])))
            return words[3:]
    if first == "-j":
        to = {"RETURN": 0, "REDIRECT": int(words[3]) if words[2:3] == ["--to-ports"] else 0}[second]
        done |= {"ends": True, "to": to}
        if len(words) != (4 if second == "REDIRECT" else 2):
            raise ValueError("more than that is done")
        return ()
    name, kind = _WORDS[first]
    if (name == "interface" and first != ("-o" if way == "output" else "-i")) or name in done:
        raise ValueError(first)
    done[name] = kind(second)
    return words[2:]


def missing_module(errors: str, family: int = 4) -> str:
    """The kernel module that iptables-restore lacks, by what it says; "" where it says none."""
    if "can't initialize" in errors or "Cannot initialize" in errors or "Table does not exist" in errors:
        return "iptable_nat" if family == 4 else "ip6table_nat"
    match = _MISSING.search(errors)
    return MODULES.get(match[1], f"xt_{match[1]}") if match else ""
