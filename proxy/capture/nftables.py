"""A plan as nftables has it: one table of our own, which is there whole or not at all.

Law: pure. `install` and `remove` hold whatever was there before, as the table is made, ended and made anew in one go.
"""

from __future__ import annotations

import json
from typing import Any, Final

from policyd.errors import StateError
from proxy.capture.plan import Plan, Rule, Way, mark

TABLE: Final = "policyd_capture"
REMOVE: Final = f"table inet {TABLE}\ndelete table inet {TABLE}\n"
_HOOKS: Final[dict[Way, str]] = {"output": "output", "input": "prerouting"}
# what a plan needs of the kernel, and the module that has it
_PROBE: Final = f"table inet {TABLE} {{\nchain probe {{\ntype nat hook output priority -100;\n"
NEEDS: Final = (
    ("nf_tables", f"table inet {TABLE} {{\n}}\n"),
    ("nft_chain_nat", f"{_PROBE}}}\n}}\n"),
    ("nft_redir", f"{_PROBE}tcp dport 9 redirect to :9\n}}\n}}\n"),
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
    hook = f"\t\ttype nat hook {_HOOKS[way]} priority -100; policy accept;\n"
    return f"\tchain {way} {{\n{hook}{first}{lines}\t}}\n"


def _rule(rule: Rule) -> str:
    interface = "oifname" if rule.way == "output" else "iifname"
    parts = [
        f'{interface} "{rule.interface}"' if rule.interface else "",
        f"meta skuid {rule.uid}" if rule.uid is not None else "",
        f"meta skgid {rule.gid}" if rule.gid is not None else "",
        f"{'ip' if rule.network.version == 4 else 'ip6'} daddr {rule.network}" if rule.network is not None else "",
        f"{rule.protocol} dport {rule.port}" if rule.port else "",
        f"meta l4proto {rule.protocol}" if rule.protocol and not rule.port else "",
        f"redirect to :{rule.to}" if rule.to else "return",
        f'comment "{rule.says}"',
    ]
    return " ".join(filter(None, parts))


def installed(listed: str) -> tuple[tuple[Way, str], ...]:
    """What is said of the rules that are there, in their order, the mark first (nft -j list table)."""
    try:
        found: list[dict[str, Any]] = json.loads(listed)["nftables"]
        rules = [one["rule"] for one in found if "rule" in one]
        return tuple((one["chain"], str(one.get("comment", ""))) for one in rules)
    except (ValueError, KeyError, TypeError):
        raise StateError("nft lists its rules in words that are not understood") from None
