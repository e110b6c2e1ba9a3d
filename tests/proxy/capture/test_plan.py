"""A plan of a capture: rules in their order, as nftables and as iptables have them, and what is no plan."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from policyd.errors import UsageError
from proxy.capture import iptables, nftables
from proxy.capture.found import judge
from proxy.capture.plan import MOST, Plan, readable

GOLDEN = Path(__file__).parent.parent / "golden"
FULL = Plan(
    uids=(990,),
    gids=(1337,),
    outbound_ports=(5432,),
    inbound_ports=(22, 9100),
    networks=(ipaddress.ip_network("10.9.0.0/16"), ipaddress.ip_network("fd00:9::/32")),
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
        ({"other_uids": tuple(range(MOST + 1))}, "there are more than 256 exceptions of one kind; name wider ones"),
    ],
)  # fmt: skip
def test_what_is_no_plan(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        Plan(**{"uids": (990,), **change})

    assert str(error.value) == message


def test_every_change_of_a_plan_is_another_plan() -> None:
    others = [Plan(uids=(990,)), Plan(gids=(990,)), Plan(uids=(990,), dns=False), Plan(uids=(990,), inbound_ports=())]

    assert len({plan.digest for plan in others}) == len(others)


SAVED = iptables.install(FULL, "", 4).replace("*nat\n", "*nat\n:PREROUTING ACCEPT [0:0]\n")


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
WHOLE = iptables.installed(iptables.install(ASKED, "", 4))


@pytest.mark.parametrize(
    ("said", "asked", "verdict"),
    [
        ((), ASKED, "absent"),
        (WHOLE, ASKED, "as asked"),
        (WHOLE, None, "as asked"),
        (WHOLE, FULL, "other"),
        (WHOLE[1:], ASKED, "broken"),  # without its mark
        (WHOLE[:-1], ASKED, "broken"),  # a rule was taken out
        ((*WHOLE, ("input", "mine")), ASKED, "broken"),  # or put in
        ((*WHOLE[:-2], WHOLE[-1], WHOLE[-2]), ASKED, "broken"),  # or moved
        ((*WHOLE, WHOLE[0]), ASKED, "broken"),
        (tuple(one for one in WHOLE if one[0] == "output"), ASKED, "broken"),
    ],
)
def test_what_is_installed_is_judged(said: tuple[tuple[Any, str], ...], asked: Plan | None, verdict: str) -> None:
    assert judge(said, asked.digest if asked else None).verdict == verdict
