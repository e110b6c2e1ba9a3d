"""A plan of a capture: rules in their order, as nftables and as iptables have them, and what is no plan."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policyd.errors import UsageError
from policyd.mesh import virtual
from proxy.capture import iptables, nftables
from proxy.capture.found import Installed, State, judge
from proxy.capture.plan import MOST, VIRTUAL, Plan, Rule, readable

GOLDEN = Path(__file__).parent.parent / "golden"
FULL = Plan(
    uids=(990,),
    gids=(1337,),
    outbound_ports=(5432,),
    inbound_ports=(22, 9100),
    networks=(ipaddress.ip_network("10.9.0.0/16"), ipaddress.ip_network("fd00:9::/32")),
    interfaces=("docker0", "br-*"),
    other_uids=(33,),
    other_gids=(44,),
)


def test_a_plan_is_what_it_was(request: pytest.FixtureRequest) -> None:
    texts = {
        "plan.txt": readable(FULL) + "\n",
        "plan.nft": nftables.install(FULL),
        "plan.iptables": iptables.install(FULL, "", 4),
        "plan.ip6tables": iptables.install(FULL, "", 6),
    }
    for name, text in texts.items():
        file = GOLDEN / f"capture-{name}"
        if request.config.getoption("--update-golden"):
            file.write_text(text)
        assert text == file.read_text()


def test_what_envoy_and_the_agent_send_is_let_be_before_all_else() -> None:
    first, second, *_ = FULL.rules

    assert (first.uid, first.to, second.gid, second.to) == (990, 0, 1337, 0)


@pytest.mark.parametrize(
    ("change", "ways"),
    [
        ({}, {"output", "input"}),
        ({"inbound": False}, {"output"}),
        ({"outbound": False, "dns": False}, {"input"}),
        ({"outbound": False, "inbound": False}, {"output"}),
        ({"dns": False}, {"output", "input"}),
    ],
)
def test_parts_of_it_are_left_out(change: dict[str, bool], ways: set[str]) -> None:
    plan = Plan(uids=(990,), **change)  # type: ignore[arg-type]
    redirected = {rule.to for rule in plan.rules if rule.to}

    assert {rule.way for rule in plan.rules} == ways
    assert (15001 in redirected, 15006 in redirected, 15053 in redirected) == (plan.outbound, plan.inbound, plan.dns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uids": ()}, "nothing tells the agent's own traffic from what is to be captured; name the user or the group "
         "that it runs as with --proxy-user or --proxy-group"),
        ({"outbound": False, "inbound": False, "dns": False},
         "nothing is left to capture; leave one of the --no options out"),
        ({"outbound_ports": (53,)}, "port 53 is excluded and captured; write --no-dns instead"),
        ({"networks": (ipaddress.ip_network("::/0"),)},
         "`::/0` is every address; leave it out, or write --no-outbound to capture nothing that is sent"),
        ({"interfaces": ("lo",)}, "`lo` is no interface to exclude; write one as `ip link` shows it, as in `docker0` "
         "or `br-*`; loopback is never captured"),
        ({"interfaces": ('x" accept',)}, "`x\" accept` is no interface to exclude; write one as `ip link` shows it, as "
         "in `docker0` or `br-*`; loopback is never captured"),
        ({"included_uids": (990,)}, "user 990 is the agent's own and included; include the application's"),
        ({"inbound_ports": (22, 80), "included_inbound_ports": (80,)},
         "inbound port 80 is excluded and included; leave one of them out"),
        ({"outbound": False, "included_networks": (ipaddress.ip_network("10.0.0.0/8"),)},
         "something is included of what --no-outbound leaves out; leave one of them out"),
        ({"other_uids": tuple(range(MOST + 1))}, "there are more than 256 exceptions of one kind; name wider ones"),
        ({"included_uids": tuple(range(30)), "included_gids": (1, 2, 3)},
         "more than 32 users and groups are included; include a group that they are in"),
    ],
)  # fmt: skip
def test_what_is_no_plan(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        Plan(**{"uids": (990,), **change})

    assert str(error.value) == message


def test_every_change_of_a_plan_is_another_plan() -> None:
    others = [Plan(uids=(990,)), Plan(gids=(990,)), Plan(uids=(990,), dns=False), Plan(uids=(990,), inbound_ports=())]

    assert len({plan.digest for plan in others}) == len(others)


def test_names_of_the_mesh_are_where_policyd_puts_them() -> None:
    assert (virtual.V4, virtual.V6) == VIRTUAL


SAVED = iptables.install(FULL, "", 4).replace("*nat\n", "*nat\n:PREROUTING ACCEPT [0:0]\n")
SAVED = SAVED.replace("-I OUTPUT 1", "-A OUTPUT").replace("-I PREROUTING 1", "-A PREROUTING")


def test_iptables_takes_out_its_jumps_as_often_as_they_are_there() -> None:
    twice = SAVED + "-A OUTPUT -j POLICYD_OUTPUT\n"

    assert iptables.remove(twice).splitlines() == [
        "*nat",
        ":POLICYD_OUTPUT - [0:0]",
        ":POLICYD_INPUT - [0:0]",
        "-D OUTPUT -j POLICYD_OUTPUT",
        "-D PREROUTING -j POLICYD_INPUT",
        "-D OUTPUT -j POLICYD_OUTPUT",
        "-X POLICYD_OUTPUT",
        "-X POLICYD_INPUT",
        "COMMIT",
    ]
    assert iptables.remove("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n") == ""


@pytest.mark.parametrize(
    ("errors", "module"),
    [
        (
            "iptables-restore v1.8.9 (legacy): can't initialize iptables table `nat': Table does not exist",
            "iptable_nat",
        ),
        ("Warning: Extension owner revision 0 not supported, missing kernel module?", "xt_owner"),
        ("Extension REDIRECT revision 0 not supported", "xt_REDIRECT"),
        ("Couldn't load match `comment'", "xt_comment"),
        ("something else", ""),
    ],
)
def test_iptables_says_which_module_is_missing(errors: str, module: str) -> None:
    assert iptables.missing_module(errors) == module


ASKED = Plan(uids=(990,))
WHOLE = iptables.installed(
    iptables.install(ASKED, "", 4).replace("-I OUTPUT 1", "-A OUTPUT").replace("-I PREROUTING 1", "-A PREROUTING")
)
RULES = WHOLE.rules
OTHERS = Installed("input", "mine", Rule("input", protocol="tcp", port=8080))
AGAIN = "this is not what was installed; install it again"
OF_NO_PLAN = f"changed: rules of the plan {iptables.digest_of(ASKED, 4)} are missing, moved or added"


@pytest.mark.parametrize(
    ("state", "asked", "verdict", "says"),
    [
        (State(), ASKED, "absent", ("nothing is captured",)),
        (WHOLE, ASKED, "as asked", ()),
        (WHOLE, None, "as asked", ()),
        (WHOLE, Plan(uids=(990,), inbound_ports=(22, 80), dns=False), "other", (
            "missing: input: let be what comes to port 80",
            "not asked for: output: questions of DNS by udp to the agent, at 15053",
            "not asked for: output: questions of DNS by tcp to the agent, at 15053",
            "this is not what is asked for; install it again")),
        (State(RULES[1:]), ASKED, "broken",
         ("changed: output: its first rule is not the mark of a plan, or another is", AGAIN)),
        (State(RULES[:-1]), ASKED, "broken",
         (OF_NO_PLAN, "missing: input: all other connections to Envoy, at 15006", AGAIN)),
        (State(RULES[:-1]), None, "broken", (OF_NO_PLAN, AGAIN)),
        (State((*RULES[:-1], OTHERS, RULES[-1])), ASKED, "broken", (
            "changed: input: let be what comes to port 8080, which calls itself `mine`", OF_NO_PLAN,
            "not asked for: input: let be what comes to port 8080", AGAIN)),
        (State((*RULES[:-2], RULES[-1], RULES[-2])), ASKED, "broken",
         (OF_NO_PLAN, "moved: input: let be what comes to port 22", AGAIN)),
        (State((*RULES, RULES[0])), ASKED, "broken",
         ("changed: output: its first rule is not the mark of a plan, or another is", AGAIN)),
        (State(tuple(one for one in RULES if one.way == "output")), None, "broken", (OF_NO_PLAN, AGAIN)),
        (State(RULES, ("changed: output: nothing leads from OUTPUT to POLICYD_OUTPUT",)), ASKED, "broken",
         ("changed: output: nothing leads from OUTPUT to POLICYD_OUTPUT", AGAIN)),
        # somebody opened a port, and left the words as they were
        (State((*RULES[:-1], replace(RULES[-1], rule=Rule("input", protocol="tcp", port=9)))), None, "broken", (
            "changed: input: let be what comes to port 9, "
            "which calls itself `all other connections to Envoy, at 15006`",
            OF_NO_PLAN, AGAIN)),
    ],
)  # fmt: skip
def test_what_is_installed_is_judged(state: State, asked: Plan | None, verdict: str, says: tuple[str, ...]) -> None:
    found = judge(state, iptables.rules_of(asked, 4) if asked else None)
    there = len([one for one in state.rules if not one.idle])

    assert found.verdict == verdict
    assert found.lines[there:] == says


def networks(version: int) -> st.SearchStrategy[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    bits = 32 if version == 4 else 128
    return st.builds(
        lambda number, length: ipaddress.ip_network((number >> (bits - length) << (bits - length), length)),
        st.integers(0, 2**bits - 1), st.integers(1, bits),
    )  # fmt: skip


CONDITIONS: list[st.SearchStrategy[dict[str, Any]]] = [
    st.fixed_dictionaries({"uid": st.integers(0, 3)}),
    st.fixed_dictionaries({"gid": st.integers(0, 3)}),
    st.fixed_dictionaries({"network": networks(4) | networks(6)}),
    st.fixed_dictionaries({"port": st.sampled_from([53, 80]), "protocol": st.sampled_from(["tcp", "udp"])}),
    st.fixed_dictionaries({"interface": st.sampled_from(["lo", "eth0", "br-*"])}),
    st.just({"stands": True, "protocol": "tcp"}),
    st.just({"passes": True}),
    st.fixed_dictionaries({"others": st.sampled_from([(("user", 1),), (("user", 1), ("group", 2)), (("group", 1),)])}),
    st.just({}),
]
RULE = st.builds(
    lambda way, one, other, to: Rule(way, **{**one, **other, **to}),
    st.sampled_from(["output", "input"]), st.one_of(CONDITIONS), st.just({}) | st.one_of(CONDITIONS),
    st.sampled_from([{}, {"to": 15001, "protocol": "tcp"}, {"to": 15053, "protocol": "udp"}]),
)  # fmt: skip


@given(RULE, RULE)
@example(Rule("output", uid=0, interface="eth0"), Rule("output", gid=0, interface="eth0"))
def test_rules_that_do_not_do_the_same_do_not_say_the_same(one: Rule, other: Rule) -> None:
    assert (one == other) == ((one.way, one.says) == (other.way, other.says))
    assert (one == other) == ((one.way, one.comment) == (other.way, other.comment))
