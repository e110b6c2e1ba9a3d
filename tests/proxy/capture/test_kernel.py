"""The machine's rules: as nft and iptables keep them, and what is said where they do not."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy.capture.command import add_to, plan_of, run
from proxy.capture.kernel import CaptureError, Done, Iptables, Nftables, is_privileged, tables
from proxy.capture.kernel import run as really
from proxy.capture.nftables import NEEDS
from proxy.capture.plan import Plan
from tests.spaces import Space

PLAN = Plan(gids=(1337,), networks=(ipaddress.ip_network("10.9.0.0/16"),))
HALF = "table inet policyd_capture {\nchain output {\ntype nat hook output priority 0\n}\n}\n"
OTHER = Plan(gids=(1337,), dns=False)


@dataclass
class FakeKernel:
    """Refuses rulesets in which a word stands, and lists nothing."""

    lacks: str = ""
    told: list[str] = field(default_factory=list)

    def __call__(self, command: Sequence[str], told: str = "") -> Done:
        self.told.append(told)
        if self.lacks and self.lacks in told:
            return Done(1, "", "Error: Could not process rule: No such file or directory")
        return Done(1, "", "No such file or directory") if "list" in command else Done(0, "", "")


@pytest.mark.parametrize(
    ("lacks", "message"),
    [
        ("table", "this kernel lacks the module `nf_tables`; `modprobe nf_tables` on the host, or a kernel that has "
         "it"),
        ("hook", "this kernel lacks the module `nft_chain_nat`; `modprobe nft_chain_nat` on the host, or a kernel that "
         "has it"),
        ("redirect", "this kernel lacks the module `nft_redir`; `modprobe nft_redir` on the host, or a kernel that has "
         "it"),
        ("skgid", "nft refuses: Error: Could not process rule: No such file or directory"),
    ],
)  # fmt: skip
def test_a_kernel_without_a_module_is_told_by_its_name(lacks: str, message: str) -> None:
    with pytest.raises(CaptureError) as error:
        Nftables(FakeKernel(lacks)).install(PLAN)

    assert str(error.value) == message


def test_without_privileges_the_capability_is_named() -> None:
    with pytest.raises(CaptureError) as error:
        tables(FakeKernel(), privileged=False)

    assert str(error.value) == (
        "rules of the network need the capability CAP_NET_ADMIN, which this process lacks; run it as root, in the "
        "network that is to be captured"
    )


@pytest.mark.parametrize(
    ("here", "name"),
    [({"nft", "iptables-restore"}, "nftables"), ({"iptables-restore", "ip6tables-restore"}, "iptables")],
)
def test_nft_goes_before_iptables(here: set[str], name: str) -> None:
    assert tables(FakeKernel(), privileged=True, which=lambda one: one if one in here else None).name == name


def test_without_either_it_is_said_what_to_install() -> None:
    with pytest.raises(CaptureError) as error:
        tables(FakeKernel(), privileged=True, which=lambda _: None)

    assert str(error.value) == "neither `nft` nor `iptables-restore` is here; install nftables"


@pytest.mark.parametrize(
    ("status", "privileged"),
    [
        ("CapEff:\t0000000000001000\n", True),
        ("CapEff:\t0000000000000fff\n", False),
        ("Name:\tx\n", False),
        (None, False),
    ],
)
def test_the_capability_is_looked_up(tmp_path: Path, status: str | None, privileged: bool) -> None:
    file = tmp_path / "status"
    if status is not None:
        file.write_text(status)

    assert is_privileged(file) == privileged


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_to(parser.add_subparsers(dest="command"), argparse.ArgumentParser)
    return parser.parse_args(["capture", *words])


def test_the_command_line_becomes_a_plan() -> None:
    words = (
        "--proxy-user 990 --proxy-group 1337 --exclude-outbound-port 5432 --exclude-inbound-port 9100 --exclude-cidr"
    )
    more = "10.9.0.0/16 --exclude-user root --exclude-group 44 --no-dns"

    assert plan_of(parsed("install", *words.split(), *more.split())) == Plan(
        uids=(990,), gids=(1337,), dns=False, outbound_ports=(5432,), inbound_ports=(22, 9100),
        networks=(ipaddress.ip_network("10.9.0.0/16"),), other_uids=(0,), other_gids=(44,),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--proxy-user", "nobody-at-all"), "there is no user `nobody-at-all`"),
        (("--proxy-group", "nobody-at-all"), "there is no group `nobody-at-all`"),
        (("--exclude-inbound-port", "0"), "`0` is no port"),
        (("--exclude-outbound-port", "70000"), "`70000` is no number up to 65535"),
        (("--exclude-cidr", "10.9.0.1/16"), "`10.9.0.1/16` is no range of addresses; write one, as in `10.0.0.0/8`"),
    ],
)
def test_a_word_that_means_nothing_is_refused(
    words: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed("install", *words)

    assert message in capsys.readouterr().err


def test_a_dry_run_prints_the_plan_and_touches_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parsed("install", "--proxy-group", "1337", "--dry-run")) == 0

    printed = capsys.readouterr().out
    assert printed.startswith("what is sent from here:\n  1. let be what group 1337 sends: the agent and its Envoys\n")
    assert printed.endswith('redirect to :15006 comment "all other connections to Envoy, at 15006"\n\t}\n}\n')


@pytest.fixture
def space() -> Iterator[Space]:
    found = Space()
    yield found
    found.close()


def there(space: Space) -> tuple[Nftables, Iptables]:
    """The rules of another network."""

    def inside(command: Sequence[str], told: str = "") -> Done:
        return really(space.enter(*command), told)

    return Nftables(inside), Iptables(inside)


@pytest.mark.needs("root", "nft", "iptables-restore", "nsenter", "ip")
@pytest.mark.parametrize("which", [0, 1], ids=["nftables", "iptables"])
def test_rules_are_installed_once_replaced_and_removed(space: Space, which: int) -> None:
    rules = there(space)[which]
    assert rules.show().verdict == "absent"

    rules.install(PLAN)
    once = space.run("nft", "list", "ruleset")
    rules.install(PLAN)
    assert (rules.show(PLAN).verdict, rules.show(OTHER).verdict) == ("as asked", "other")
    assert space.run("nft", "list", "ruleset") == once

    rules.install(OTHER)
    assert rules.show(OTHER).verdict == "as asked"
    rules.remove()
    rules.remove()
    assert rules.show().verdict == "absent"
    assert "policyd" not in space.run("nft", "list", "ruleset").lower()


@pytest.mark.needs("root", "nft", "nsenter", "ip")
@pytest.mark.parametrize(("module", "ruleset"), NEEDS)
def test_this_kernel_has_what_it_is_asked_for(space: Space, module: str, ruleset: str) -> None:
    space.run("nft", "-c", "-f", "-", told=ruleset)


@pytest.mark.needs("root", "nft", "iptables-restore", "nsenter", "ip")
def test_half_of_a_capture_is_seen_and_replaced(space: Space) -> None:
    nft, iptables = there(space)

    space.run("nft", "-f", "-", told=HALF)
    assert nft.show().verdict == "absent"  # a table without a rule captures nothing
    space.run(
        "nft", "add", "rule", "inet", "policyd_capture", "output", "tcp", "dport", "1", "redirect", "to", ":15001"
    )
    assert nft.show().verdict == "broken"
    nft.install(PLAN)
    assert nft.show(PLAN).verdict == "as asked"
    nft.remove()

    iptables.install(PLAN)
    space.run("ip6tables", "-t", "nat", "-F", "POLICYD_OUTPUT")
    assert iptables.show(PLAN).verdict == "broken"
    iptables.install(PLAN)
    assert iptables.show(PLAN).verdict == "as asked"
