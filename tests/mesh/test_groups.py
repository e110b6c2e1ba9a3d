"""Groups: short names become ids, and nobody is silently left out."""

from __future__ import annotations

import pytest

from policyd.mesh.model import Group
from policyd.spiffe import SpiffeId
from tests.mesh.sample import GOOD, meshed, problems

NO_WORKLOAD = "; write `<service account>[.<namespace>]` or a SPIFFE ID"
NO_OPERATOR = "; write `unix:<uid>`, `oidc:<issuer>/<subject>` or `token:<name>`"


def test_members_by_short_name_become_ids() -> None:
    assert meshed(GOOD).groups["callers"] == Group(
        "callers",
        workloads=frozenset(SpiffeId.workload("cluster.local", "default", name) for name in ("web", "api")),
        services=frozenset({"api.default"}),
        groups=frozenset({"people"}),
    )


def test_a_member_of_another_trust_domain_is_declared_there() -> None:
    text = "groups: {partners: {workloads: ['spiffe://partner.org/ns/a/sa/b']}}"
    groups = meshed({**GOOD, "groups.yaml": text}).groups
    assert groups["partners"].workloads == {SpiffeId("partner.org", "/ns/a/sa/b")}


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("{workloads: [wep]}", "no instance has the identity `wep`; did you mean `web`?"),
        ("{workloads: [web.shop]}", "no instance has the identity `web.shop`; declare it or take it out"),
        (
            "{workloads: ['spiffe://cluster.local/ns/default/sa/wep']}",
            "no instance has the identity `spiffe://cluster.local/ns/default/sa/wep`; declare it or take it out",
        ),
        ("{workloads: ['a b']}", "`a b` is no workload" + NO_WORKLOAD),
        ("{workloads: ['spiffe://A/b']}", "`spiffe://A/b` is no workload" + NO_WORKLOAD),
        ("{services: [aip]}", "no service is called `aip`; did you mean `api.default`?"),
        ("{groups: [pepole]}", "no group is called `pepole`; declare it or take it out"),
        ("{users: [alice]}", "`alice` is no user; write `<issuer>/<subject>`"),
        ("{operators: [root]}", "`root` is no operator" + NO_OPERATOR),
        ("{operators: ['unix:root']}", "`unix:root` is no operator" + NO_OPERATOR),
        (
            "{hosts: ['Example.com']}",
            "`Example.com` is no host name; use lower-case letters, digits, dots and dashes, and no port",
        ),
        ("{groups: [a]}", "the group `a` contains itself: a > a; take one of them out"),
    ],
)
def test_a_member_that_nothing_declares_is_refused(spec: str, problem: str) -> None:
    assert problems({**GOOD, "groups.yaml": f"groups: {{a: {spec}}}"}) == [f"groups.yaml:1: {problem}"]


def test_a_recursive_group_is_refused_with_the_way_round() -> None:
    text = "groups:\n  a: {groups: [b]}\n  b: {groups: [c]}\n  c: {groups: [a]}\n  d: {groups: [a, c]}\n"
    assert problems({**GOOD, "groups.yaml": text}) == [
        "groups.yaml:4: the group `a` contains itself: a > b > c > a; take one of them out"
    ]


def test_a_long_chain_of_groups_needs_no_recursion() -> None:
    chain = "".join(f"  g{n}: {{groups: [g{n + 1}]}}\n" for n in range(5000))
    groups = meshed({**GOOD, "groups.yaml": f"groups:\n{chain}  g5000: {{}}\n"}).groups
    assert len(groups) == 5001
