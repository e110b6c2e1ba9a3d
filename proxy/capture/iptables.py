"""A plan as iptables has it, where there is no nftables: chains of our own in the table `nat`, and a jump to each.

Law: pure. Each family is one text, which iptables-restore takes as a whole; what was there of ours is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from proxy.capture.plan import Plan, Rule, Way, digest, mark

CHAINS: Final[dict[Way, str]] = {"output": "POLICYD_OUTPUT", "input": "POLICYD_INPUT"}
_HOOKS: Final[dict[Way, str]] = {"output": "OUTPUT", "input": "PREROUTING"}
_MISSING: Final = re.compile(r"(?:Extension|match|target) [`\"']?(\w+)")
MODULES: Final = {"owner": "xt_owner", "comment": "xt_comment", "REDIRECT": "xt_REDIRECT", "tcp": "xt_tcpudp"}


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
        rules = [rule for rule in plan.rules if rule.way == way and _is_of(rule, family)]
        if rules:
            found.append(f'-A {chain} -m comment --comment "{mark(digest_of(plan, family))}"')
            found += [f"-A {chain} {_rule(rule)}" for rule in rules]
            found.append(f"-A {_HOOKS[way]} -j {chain}")
    return found


def digest_of(plan: Plan, family: int) -> str:
    """What tells the part of a plan that is of one family from others."""
    return digest((rule.way, rule.says) for rule in plan.rules if _is_of(rule, family))


def _is_of(rule: Rule, family: int) -> bool:
    return rule.network is None or rule.network.version == family


def _rule(rule: Rule) -> str:
    parts = [
        f"{'-o' if rule.way == 'output' else '-i'} {rule.interface}" if rule.interface else "",
        f"-d {rule.network}" if rule.network is not None else "",
        f"-p {rule.protocol}" if rule.protocol else "",
        f"-m {rule.protocol} --dport {rule.port}" if rule.port else "",
        f"-m owner --uid-owner {rule.uid}" if rule.uid is not None else "",
        f"-m owner --gid-owner {rule.gid}" if rule.gid is not None else "",
        f'-m comment --comment "{rule.says}"',
        f"-j REDIRECT --to-ports {rule.to}" if rule.to else "-j RETURN",
    ]
    return " ".join(filter(None, parts))


def installed(saved: str) -> tuple[tuple[Way, str], ...]:
    """What is said of the rules that are there and jumped to, in their order, the mark first (iptables-save)."""
    found: list[tuple[Way, str]] = []
    lines = [line.strip() for line in saved.splitlines()]
    for way, chain in CHAINS.items():
        if f"-A {_HOOKS[way]} -j {chain}" in lines:
            said = (re.search(r'--comment "([^"]*)"', line) for line in lines if line.startswith(f"-A {chain} "))
            found += [(way, match[1] if match else "") for match in said]
    return tuple(found)


def missing_module(errors: str) -> str:
    """The kernel module that iptables-restore lacks, by what it says; "" where it says none."""
    if "can't initialize" in errors or "Table does not exist" in errors:
        return "iptable_nat"
    match = _MISSING.search(errors)
    return MODULES.get(match[1], f"xt_{match[1]}") if match else ""
