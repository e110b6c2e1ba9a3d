"""The machine's rules: as nft and iptables keep them, and what is said where they do not."""

from __future__ import annotations

import argparse
import ipaddress
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from proxy.capture.command import add_to, plan_of, run
from proxy.capture.kernel import CaptureError, Done, Iptables, Nftables, Tables, is_privileged, tables
from proxy.capture.kernel import run as really
from proxy.capture.nftables import NEEDS
from proxy.capture.plan import Plan
from tests.spaces import Space

PROXY = str(Path(sys.executable).parent / "policyd-proxy")
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
        ("fib", "this kernel lacks the module `nft_fib_inet`; `modprobe nft_fib_inet` on the host, or a kernel that "
         "has it"),
        ("skgid", "nft refuses: Error: Could not process rule: No such file or directory"),
    ],
)  # fmt: skip
def test_a_kernel_without_a_module_is_told_by_its_name(lacks: str, message: str) -> None:
    with pytest.raises(CaptureError) as error:
        Nftables(FakeKernel(lacks)).install(PLAN)

    assert str(error.value) == message


FOREIGN = (
    "may not change this network: CAP_NET_ADMIN counts in the user namespace to which a network belongs, and this "
    "process is in another; run it as root of the host, or in a network that was made in this user namespace"
)


@pytest.mark.parametrize(
    ("errors", "held", "family", "message"),
    [
        ("ip6tables-restore v1.8.9 (legacy): Cannot initialize: Address family not supported", 1 << 13, 6,
         "this kernel lacks the module `ip6table_nat`; `modprobe ip6table_nat` on the host, or a kernel that has it"),
        ("iptables-save v1.8.9 (legacy): Cannot initialize: Permission denied (you must be root)", 0, 4,
         "iptables needs the capability CAP_NET_RAW, too, which this process lacks; give it that, or install nftables"),
        ("iptables-save v1.8.9 (legacy): Cannot initialize: Permission denied (you must be root)", 1 << 13, 4,
         f"iptables {FOREIGN}"),
        ("", 0, 4, "iptables refuses: it does not say why"),
    ],
)  # fmt: skip
def test_why_iptables_refuses_is_told(errors: str, held: int, family: int, message: str) -> None:
    def refuses(command: Sequence[str], told: str = "") -> Done:
        return Done(1, "", errors) if command[0].startswith("ip6") == (family == 6) else Done(0, "", "")

    with pytest.raises(CaptureError) as error:
        Iptables(refuses, ipv6=True, held=lambda: held).install(PLAN)

    assert str(error.value) == message


def test_a_kernel_without_ipv6_is_captured_without_it() -> None:
    asked: list[str] = []

    def has_four(command: Sequence[str], told: str = "") -> Done:
        asked.append(command[0])
        return Done(0, "", "")

    Iptables(has_four, ipv6=False).install(PLAN)

    assert asked == ["iptables-save", "iptables-restore"]


def test_what_others_wrote_may_be_any_bytes() -> None:
    assert really(("printf", r"\377")) == Done(0, "\ufffd", "")


@pytest.mark.needs("root", "nft", "unshare", "iptables-restore", "iptables-legacy-save", "setpriv")
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("setpriv", "--bounding-set=-net_admin"), "rules of the network need the capability CAP_NET_ADMIN, which "
         "this process lacks; run it as root, in the network that is to be captured"),
        (("unshare", "--user", "--map-root-user"), f"nft {FOREIGN}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("words", [("install", "--proxy-group", "1337"), ("remove",), ("show",)])
def test_who_may_not_is_told_what_is_missing(
    space: Space, command: Sequence[str], message: str, words: Sequence[str]
) -> None:
    assert space.run(*command, PROXY, "capture", *words, code=1) == f"policyd-proxy: {message}\n"


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
    more = "10.9.0.0/16 --exclude-user root --exclude-group 44 --no-dns --exclude-interface docker0"
    last = "--include-outbound-port 80 --include-inbound-port 8080 --include-cidr fd00::/8"
    last += " --include-user 1000 --include-group 1001"

    assert plan_of(parsed("install", *words.split(), *more.split(), *last.split())) == Plan(
        uids=(990,), gids=(1337,), dns=False, outbound_ports=(5432,), inbound_ports=(22, 9100),
        networks=(ipaddress.ip_network("10.9.0.0/16"),), other_uids=(0,), other_gids=(44,), interfaces=("docker0",),
        included_outbound_ports=(80,), included_inbound_ports=(8080,),
        included_networks=(ipaddress.ip_network("fd00::/8"),), included_uids=(1000,), included_gids=(1001,),
    )  # fmt: skip
    assert plan_of(parsed("install", "--proxy-user", "990", "--include-inbound-port", "22")).inbound_ports == ()


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


@pytest.mark.parametrize(
    ("programs", "ends"),
    [
        (("iptables-restore", "ip6tables-restore"), "-I PREROUTING 1 -j POLICYD_INPUT\nCOMMIT\n"),
        ((), 'redirect to :15006 comment "all other connections to Envoy, at 15006"\n\t}\n}\n'),
    ],
    ids=["iptables", "nothing"],
)
def test_a_dry_run_says_what_the_tools_of_the_machine_would_be_told(
    tmp_path: Path, programs: tuple[str, ...], ends: str
) -> None:
    for name in programs:
        (tmp_path / name).write_text("#!/bin/false\n")
        (tmp_path / name).chmod(0o755)
    command = (PROXY, "capture", "install", "--proxy-group", "1337", "--dry-run")
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True)

    assert done.stdout.endswith(ends)


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


NETWORKS = ("10.9.0.0/16", "10.9.0.1/32", "192.0.2.128/25", "fd00:9::/32", "fd00:9::1/128", "2001:db8::/127")
EVERYTHING = Plan(
    uids=(0, 990, 2**32 - 2), gids=(0, 1337), outbound_ports=(1, 5432, 65535), inbound_ports=(22, 53),
    networks=tuple(map(ipaddress.ip_network, NETWORKS)), interfaces=("docker0", "br-*", "eth0.5", "a_b"),
    other_uids=(33,), other_gids=(44,), included_outbound_ports=(80, 443), included_inbound_ports=(8080,),
    included_networks=tuple(map(ipaddress.ip_network, ("172.16.0.0/12", "fd01::1/128"))),
    included_uids=tuple(range(1000, 1031)), included_gids=(1002,),
)  # fmt: skip


@pytest.mark.needs("root", "nft", "iptables-restore", "nsenter", "ip")
@pytest.mark.parametrize("which", [0, 1], ids=["nftables", "iptables"])
def test_all_that_a_plan_can_have_is_read_back_from_the_kernel(space: Space, which: int) -> None:
    rules = there(space)[which]
    rules.install(EVERYTHING)

    assert rules.show(EVERYTHING).verdict == "as asked"
    assert rules.show(replace(EVERYTHING, interfaces=EVERYTHING.interfaces[::-1])).verdict == "other"


@pytest.mark.needs("root", "nft", "nsenter", "ip")
@pytest.mark.parametrize(("module", "ruleset"), NEEDS)
def test_this_kernel_has_what_it_is_asked_for(space: Space, module: str, ruleset: str) -> None:
    space.run("nft", "-c", "-f", "-", told=ruleset)


@pytest.mark.needs("root", "iptables-restore", "nsenter", "ip")
def test_an_install_that_was_killed_halfway_is_seen_and_mended(space: Space, tmp_path: Path) -> None:
    for name in ("iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"):
        program = shutil.which(name)
        assert program is not None
        (tmp_path / name).symlink_to(program)
    words = ("env", f"PATH={tmp_path}", PROXY, "capture")
    killer = tmp_path / "killer"
    killer.write_text("#!/bin/sh\nkill -9 $PPID\n")
    killer.chmod(0o755)
    whole = (tmp_path / "ip6tables-restore").readlink()
    (tmp_path / "ip6tables-restore").unlink()
    (tmp_path / "ip6tables-restore").symlink_to(killer)
    space.run(*words, "install", "--proxy-group", "1337", code=-9)
    (tmp_path / "ip6tables-restore").unlink()
    (tmp_path / "ip6tables-restore").symlink_to(whole)

    shown = space.run(*words, "show", code=1).splitlines()
    assert (shown[0], shown[-2:]) == (
        "IPv4 output: let be what group 1337 sends: the agent and its Envoys",
        ["IPv6 nothing is captured", "this is half of what was installed; install it again"],
    )
    space.run(*words, "install", "--proxy-group", "1337")
    space.run(*words, "show", "--proxy-group", "1337")
    space.run(*words, "remove")
    assert space.run(*words, "show", code=1) == "nothing is captured\n"


@pytest.mark.needs("root", "nft", "iptables-restore", "nsenter", "ip")
def test_what_iptables_had_is_not_left_behind_where_nftables_came_later(space: Space) -> None:
    nft, iptables = there(space)
    both = Tables(nft, iptables)

    iptables.install(PLAN)
    assert both.show(PLAN) == iptables.show(PLAN)
    nft.install(PLAN)
    assert both.show(PLAN).verdict == "broken"
    assert both.show(PLAN).lines[-1] == "changed: iptables has rules of a capture, too; install it again"
    both.install(PLAN)
    assert (both.show(PLAN).verdict, iptables.show().verdict) == ("as asked", "absent")
    iptables.install(PLAN)
    both.remove()
    assert (nft.show().verdict, iptables.show().verdict) == ("absent", "absent")


def handle(space: Space, chain: str, comment: str) -> str:
    """The handle by which nft knows a rule."""
    listed = space.run("nft", "-a", "list", "chain", "inet", "policyd_capture", chain)
    [line] = [line for line in listed.splitlines() if comment in line]
    return line.rpartition("handle ")[2]


CHANGES = {
    "a rule that is opened": (
        ("replace rule inet policyd_capture input handle {input: all other}", "tcp dport 8080 return comment "
         '"all other connections to Envoy, at 15006"'),
        "changed: input: let be what comes to port 8080, which calls itself `all other connections to Envoy, at 15006`",
        "missing: input: all other connections to Envoy, at 15006",
    ),
    "a rule that is narrowed": (
        ("replace rule inet policyd_capture output handle {output: all other}", "ip daddr 10.1.0.0/16 ip protocol tcp "
         'redirect to :15001 comment "all other connections to Envoy, at 15001"'),
        "changed: output: a rule that no plan has, which calls itself `all other connections to Envoy, at 15001`",
        "missing: output: all other connections to Envoy, at 15001",
    ),
    "a rule that is put in": (
        ("insert rule inet policyd_capture input", "tcp dport 8080 accept"),
        "changed: input: a rule that no plan has",
        "not asked for: input: a rule that no plan has",
    ),
    "a rule that is taken out": (
        ("delete rule inet policyd_capture output handle {output: 10.9.0.0}", ""),
        f"changed: rules of the plan {PLAN.digest} are missing, moved or added",
        "missing: output: let be what goes to 10.9.0.0/16",
    ),
    "a table that sleeps": (
        ("add table inet policyd_capture {{ flags dormant; }}", ""),
        'changed: the table has flags that nobody put there, such as dormant',
        'changed: the table has flags that nobody put there, such as dormant',
    ),
}  # fmt: skip


@pytest.mark.needs("root", "nft", "nsenter", "ip")
@pytest.mark.parametrize(("change", "found", "against"), CHANGES.values(), ids=CHANGES)
def test_a_changed_rule_is_found_and_named(space: Space, change: tuple[str, str], found: str, against: str) -> None:
    nft, _ = there(space)
    nft.install(PLAN)
    what, to = change
    chain, _, comment = what.partition("{")[2].strip("{}").partition(": ")
    if comment:
        what = what.partition("{")[0] + handle(space, chain, comment)
    space.run("nft", "-f", "-", told=f"{what.replace('{{', '{').replace('}}', '}')} {to}\n")

    assert found in nft.show().lines
    assert against in nft.show(PLAN).lines
    assert (nft.show().verdict, nft.show(PLAN).verdict) == ("broken", "broken")
    nft.install(PLAN)
    assert nft.show(PLAN).verdict == "as asked"


@pytest.mark.needs("root", "nft", "iptables-restore", "nsenter", "ip")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("-D OUTPUT -j POLICYD_OUTPUT", "IPv4 changed: output: nothing leads from OUTPUT to POLICYD_OUTPUT"),
        ("-I POLICYD_INPUT 2 -p tcp --dport 8080 -j RETURN",
         "IPv4 changed: input: let be what comes to port 8080"),
        ("-R POLICYD_INPUT 2 -i lo -d 10.1.0.0/16 -j RETURN -m comment --comment whatever",
         "IPv4 changed: input: a rule of network 10.1.0.0/16, interface lo, which calls itself `whatever`"),
        ("-I POLICYD_INPUT 2 -p tcp -m mark --mark 1 -j ACCEPT", "IPv4 changed: input: a rule that no plan has"),
        ("-F POLICYD_INPUT", "IPv4 changed: input: POLICYD_INPUT has no rules"),
    ],
)  # fmt: skip
def test_so_is_one_of_iptables(space: Space, words: str, found: str) -> None:
    _, iptables = there(space)
    iptables.install(PLAN)
    space.run("iptables", "-t", "nat", *words.split())

    assert found in iptables.show().lines
    assert (iptables.show().verdict, iptables.show(PLAN).verdict) == ("broken", "broken")
    iptables.install(PLAN)
    assert iptables.show(PLAN).verdict == "as asked"


@pytest.mark.needs("root", "iptables-restore", "nsenter", "ip")
def test_rules_of_others_that_come_first_are_noted(space: Space) -> None:
    _, iptables = there(space)
    iptables.install(PLAN)
    space.run("iptables", "-t", "nat", "-I", "OUTPUT", "-p", "tcp", "-j", "ACCEPT")

    assert iptables.show(PLAN).verdict == "as asked"
    assert "IPv4 note: output: rules of others come first: `-A OUTPUT -p tcp -j ACCEPT`" in iptables.show().lines
    iptables.install(PLAN)
    assert not [line for line in iptables.show().lines if "note" in line]


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
