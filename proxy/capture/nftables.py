"""A plan as nftables has it: one table of our own, which is there whole or not at all.

Law: pure. `install` and `remove` hold whatever was there before, as the table is made, ended and made anew in one go.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from policyd.errors import StateError
from proxy.capture.found import Installed, State, owned
from proxy.capture.plan import Plan, Rule, Way, mark

TABLE: Final = "policyd_capture"
REMOVE: Final = f"table inet {TABLE}\ndelete table inet {TABLE}\n"
PRIORITY: Final = (
    -101
)  # in front of iptables and of who publishes ports by it (dstnat, -100): the first that matches wins
_HOOKS: Final[dict[Way, str]] = {"output": "output", "input": "prerouting"}
_SENDERS: Final = {"user": "skuid", "group": "skgid"}
_STANDS: Final = ("fin", "syn", "rst", "ack")
# what a plan needs of the kernel, and the module that has it
_PROBE: Final = f"table inet {TABLE} {{\nchain probe {{\ntype nat hook output priority {PRIORITY};\n"
NEEDS: Final = (
    ("nf_tables", f"table inet {TABLE} {{\n}}\n"),
    ("nft_chain_nat", f"{_PROBE}}}\n}}\n"),
    ("nft_redir", f"{_PROBE}tcp dport 9 redirect to :9\n}}\n}}\n"),
    ("nft_fib_inet", f"{_PROBE.replace('hook output', 'hook prerouting')}fib daddr type != local return\n}}\n}}\n"),
)


def install(plan: Plan) -> str:
    """The ruleset of a plan, in the place of any other of ours (nft -f)."""
    chains = [text for way in _HOOKS if (text := _chain(plan, way))]
    return f"{REMOVE}table inet {TABLE} {{\n{''.join(chains)}}}\n"


def _chain(plan: Plan, way: Way) -> str:
    rules = [rule for rule in plan.rules if rule.way == way]
    if not rules:
        return ""
    first = f'\t\tcontinue comment "{mark(plan.digest)}"\n'
    lines = "".join(f"\t\t{_rule(rule)}\n" for rule in rules)
    hook = f"\t\ttype nat hook {_HOOKS[way]} priority {PRIORITY}; policy accept;\n"
    return f"\tchain {way} {{\n{hook}{first}{lines}\t}}\n"


def _rule(rule: Rule) -> str:
    interface = "oifname" if rule.way == "output" else "iifname"
    parts = [
        f'{interface} "{rule.interface}"' if rule.interface else "",
        f"meta skuid {rule.uid}" if rule.uid is not None else "",
        f"meta skgid {rule.gid}" if rule.gid is not None else "",
        *(f"meta {_SENDERS[who]} != {number}" for who, number in rule.others),
        f"{'ip' if rule.network.version == 4 else 'ip6'} daddr {rule.network}" if rule.network is not None else "",
        "fib daddr type != local" if rule.passes else "",
        f"tcp flags & ({'|'.join(_STANDS)}) != syn" if rule.stands else "",
        f"{rule.protocol} dport {rule.port}" if rule.port else "",
        f"meta l4proto {rule.protocol}" if rule.protocol and not rule.port and not rule.stands else "",
        f"redirect to :{rule.to}" if rule.to else "return",
        f'comment "{rule.comment}"',
    ]
    return " ".join(filter(None, parts))


def installed(listed: str) -> State:
    """What is there (nft -j list table): each rule with what it does, and chains that do not hang where they should."""
    try:
        found: list[dict[str, Any]] = json.loads(listed)["nftables"]
        rules = tuple(_read(one["rule"]) for one in found if "rule" in one)
        return State(rules, tuple(_faults(found, {one.way for one in rules})))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StateError("nft lists its rules in words that are not understood") from None


def _faults(found: Sequence[Mapping[str, Any]], used: set[Way]) -> Iterator[str]:
    """What is wrong with the table and its chains; a chain without a rule captures nothing."""
    for one in found:
        if (table := one.get("table")) is not None and table.get("flags") and used:
            yield "changed: the table has flags that nobody put there, such as dormant"
        chain = one.get("chain")
        if chain is None or chain["name"] not in used:
            continue
        hangs = [chain.get(key) for key in ("type", "hook", "prio", "policy")]
        if hangs != ["nat", _HOOKS.get(chain["name"]), PRIORITY, "accept"]:
            yield f"changed: {chain['name']}: its chain does not hang where it was put"


def _read(listed: Mapping[str, Any]) -> Installed:
    way, comment = listed["chain"], str(listed.get("comment", ""))
    done: dict[str, Any] = {}
    try:
        for one in listed["expr"]:
            read = _match(one["match"], way) if "match" in one else _verdict(one)
            if read is not None and "others" in read:
                read = {"others": done.pop("others", ()) + read["others"]}
            if read is None or done.keys() & read.keys():
                return Installed(way, comment)
            done |= read
    except (ValueError, KeyError, TypeError, AttributeError):
        return Installed(way, comment)  # somebody's, in words that we never use
    if not done.pop("ends", False):
        return Installed(way, comment, idle=listed["expr"] == [{"continue": None}])
    return Installed(way, comment, owned(Rule(way, **done), comment))


def _verdict(one: Mapping[str, Any]) -> dict[str, Any] | None:
    if one == {"return": None}:
        return {"ends": True}
    redirect = one.get("redirect")
    if isinstance(redirect, dict) and redirect.keys() == {"port"}:
        return {"ends": True, "to": redirect["port"]}
    return {} if one == {"continue": None} else None


def _match(match: Mapping[str, Any], way: Way) -> dict[str, Any] | None:
    read = {"==": _is, "!=": _is_not}.get(match["op"])
    return read(match["left"], match["right"], way) if read is not None else None


def _is_not(left: Any, right: Any, _way: Way) -> dict[str, Any] | None:
    if left == {"fib": {"result": "type", "flags": ["daddr"]}} and right == "local":
        return {"passes": True}
    for who, key in _SENDERS.items():
        if left == {"meta": {"key": key}} and isinstance(right, int):
            return {"others": ((who, right),)}
    flags = left.get("&")
    if flags and flags[0] == _field("tcp", "flags") and set(_words(flags[1])) == set(_STANDS) and right == "syn":
        return {"protocol": "tcp", "stands": True}
    return None


def _is(left: Any, right: Any, way: Way) -> dict[str, Any] | None:
    for key, name in (("skuid", "uid"), ("skgid", "gid"), ("l4proto", "protocol")):
        if left == {"meta": {"key": key}} and isinstance(right, str if name == "protocol" else int):
            return {name: right}
    if left == {"meta": {"key": "oifname" if way == "output" else "iifname"}}:
        return {"interface": right}
    for protocol in ("tcp", "udp"):
        if left == _field(protocol, "dport") and isinstance(right, int):
            return {"protocol": protocol, "port": right}
    if left in (_field("ip", "daddr"), _field("ip6", "daddr")):
        return {"network": ipaddress.ip_network(right if isinstance(right, str) else _network(right["prefix"]))}
    return None


def _network(prefix: Mapping[str, Any]) -> str:
    return f"{prefix['addr']}/{prefix['len']}"


def _field(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def _words(value: Any) -> Iterator[str]:
    """All words in a value: versions of nft nest a union of flags in different ways."""
    if isinstance(value, str):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _words(one)
