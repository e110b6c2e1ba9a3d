"""`policyd-proxy capture install|remove|show`: the command line becomes a plan, and the machine is asked.

Law: what is wrong with a plan is said before anything is touched.
"""

from __future__ import annotations

import argparse
import grp
import ipaddress
import pwd
import sys
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from proxy.capture import nftables
from proxy.capture.kernel import CaptureError, here, tables
from proxy.capture.notes import notes
from proxy.capture.plan import SSH, Network, Plan, readable
from proxy.dns.resolv_conf import text_of
from proxy.dns.resolvers import BEHIND_STUB, RESOLV_CONF, resolvers

OK, NOT_AS_ASKED = 0, 1
One = TypeVar("One")
Parser = TypeVar("Parser", bound=argparse.ArgumentParser)
USER: Final = "policyd-proxy"  # the agent's, where nothing else is said and there is one


def add_to(commands: argparse._SubParsersAction[Parser], parser: type[Parser]) -> None:
    """Add the commands to those of `policyd-proxy`."""
    text = "lead what this machine's applications send and get through its sidecar (Linux)"
    capture = commands.add_parser("capture", help=text, description=f"{text[0].upper()}{text[1:]}.")
    what = capture.add_subparsers(dest="capture", required=True, parser_class=parser)
    install = what.add_parser(
        "install",
        help="set the rules",
        description="Redirects connections to the sidecar, all at once, in the place of what was installed before.",
    )
    _options(install)
    install.add_argument("--dry-run", action="store_true", help="print the plan and the rules, and touch nothing")
    what.add_parser("remove", help="take the rules out again", description="Takes out all rules of a capture.")
    show = what.add_parser(
        "show",
        help="say what is installed, and whether it is what was asked for",
        description="Says what is installed. With the options of `install` it is compared with these. Exits 1 where "
        "nothing is installed, or something else.",
    )
    _options(show)


def _options(parser: argparse.ArgumentParser) -> None:
    def more(name: str, metavar: str, kind: Callable[[str], object], text: str) -> None:
        parser.add_argument(name, metavar=metavar, type=kind, action="append", default=[], help=text)

    more("--proxy-user", "USER", _user, f"who runs the agent, by name or number (default: `{USER}`, if there is one)")
    more("--proxy-group", "GROUP", _group, "the group that the agent runs as")
    more("--exclude-outbound-port", "PORT", _port, "let connections to this port be")
    more("--exclude-inbound-port", "PORT", _port, f"let connections that come to this port be (besides {SSH})")
    more("--exclude-cidr", "CIDR", _network, "let what goes to these addresses be, questions of DNS, too")
    more(
        "--exclude-interface", "NAME", str, "let what goes or comes by this interface be; `br-*`: by all that begin so"
    )
    more("--exclude-user", "USER", _user, "let what this user sends be")
    more("--exclude-group", "GROUP", _group, "let what this group sends be")
    more(
        "--include-outbound-port", "PORT", _port, "capture only connections to this port, and to what else is included"
    )
    more(
        "--include-cidr", "CIDR", _network, "capture only connections to these addresses, and to what else is included"
    )
    more("--include-user", "USER", _user, "capture only what this user sends, and who else is included")
    more("--include-group", "GROUP", _group, "capture only what this group sends, and who else is included")
    more("--include-inbound-port", "PORT", _port, "capture only connections that come to this port; others stay open")
    parser.add_argument("--no-outbound", action="store_true", help="capture no connections that are made here")
    parser.add_argument("--no-inbound", action="store_true", help="capture no connections that come in")
    parser.add_argument("--no-dns", action="store_true", help="capture no questions of DNS")


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code. Raises PolicydError."""
    if options.capture == "remove":
        tables().remove()
        return OK
    if options.capture == "show":
        return _show(plan_of(options) if _is_asked(options) else None)
    plan = plan_of(options)
    if options.dry_run:
        print(f"{readable(plan)}\n\n{_ruleset(plan)}", end="")
    else:
        made = tables()
        made.install(plan)
        print(f"captured by {made.name}; {readable(plan).splitlines()[-1]}")
    stub = bool(resolvers(text_of(BEHIND_STUB)))
    for note in notes(plan, resolvers(text_of(RESOLV_CONF)), stub=stub):
        print(f"note: {note}", file=sys.stderr)
    return OK


def _ruleset(plan: Plan) -> str:
    """What the best of this machine's tools would be told; where there is none, what nft would be."""
    try:
        return here().text(plan)
    except CaptureError:
        return nftables.install(plan)


def _show(asked: Plan | None) -> int:
    found = tables().show(asked)
    for line in found.lines:
        print(line)
    return OK if found.verdict == "as asked" else NOT_AS_ASKED


def _is_asked(options: argparse.Namespace) -> bool:
    told = (value for name, value in vars(options).items() if name not in ("command", "capture"))
    return any(bool(value) for value in told)


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that options mean; raises UsageError."""
    uids = tuple(options.proxy_user)
    if not uids and not options.proxy_group:
        uids = tuple(one.pw_uid for one in pwd.getpwall() if one.pw_name == USER)
    return Plan(
        uids=uids,
        gids=tuple(options.proxy_group),
        outbound=not options.no_outbound,
        inbound=not options.no_inbound,
        dns=not options.no_dns,
        outbound_ports=_each(options.exclude_outbound_port),
        inbound_ports=_each([*({SSH} - {*options.include_inbound_port}), *options.exclude_inbound_port]),
        networks=_each(options.exclude_cidr),
        interfaces=_each(options.exclude_interface),
        other_uids=_each(options.exclude_user),
        other_gids=_each(options.exclude_group),
        included_outbound_ports=_each(options.include_outbound_port),
        included_inbound_ports=_each(options.include_inbound_port),
        included_networks=_each(options.include_cidr),
        included_uids=_each(options.include_user),
        included_gids=_each(options.include_group),
    )


def _each(given: Iterable[One]) -> tuple[One, ...]:
    return tuple(dict.fromkeys(given))


def _number(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= most):
        raise argparse.ArgumentTypeError(f"`{text[:80]}` is no number up to {most}")
    return int(text)


def _port(text: str) -> int:
    if (number := _number(text, 65535)) == 0:
        raise argparse.ArgumentTypeError("`0` is no port")
    return number


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        message = f"`{text[:80]}` is no range of addresses; write one, as in `10.0.0.0/8`"
        raise argparse.ArgumentTypeError(message) from None


def _user(text: str) -> int:
    if text.isdigit():
        return _number(text, 2**32 - 2)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no user `{text[:80]}`") from None


def _group(text: str) -> int:
    if text.isdigit():
        return _number(text, 2**32 - 2)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no group `{text[:80]}`") from None
