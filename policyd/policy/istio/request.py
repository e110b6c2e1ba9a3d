"""What is asked, and from where: hosts, methods, ports, addresses and headers.

Law: Istio's Host has its port, ours has not; only what does not depend on the port is exact, unless the importer is
told that callers send none.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from policyd.cedar.reads import WITHHELD_HEADERS
from policyd.policy.istio.expression import TRUE, Test, both, either, quoted
from policyd.policy.istio.field import Place
from policyd.policy.istio.pattern import Pattern, matches, pattern_of
from policyd.signals import PEER_HEADER

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")  # RFC 9110, 5.6.2
_PORT = re.compile(r"[0-9]{1,10}")
_BITS = re.compile(r"/(?:0|[1-9][0-9]{0,2})")


def hosts(values: Sequence[str], without_port: bool, place: Place) -> Test:
    """Return the test for `hosts`, whatever the case of their letters."""
    lower = [value.lower() for value in values]
    patterns: list[Pattern] = []
    for at, value in enumerate(lower):
        if value.endswith(":*") and value[:-2] in lower:
            continue  # the same host with any port
        pattern = pattern_of(value)
        free = pattern.kind in ("present", "prefix") or (pattern.kind == "exact" and f"{value}:*" in lower)
        if ":" in value:
            place.at(at).refuse(
                f"`{value[:120]}`: policies see the host without its port", "write the host, and `host:*`"
            )
        elif not free and not without_port:
            remedy = f"write `{value}:*` beside it, or pass --hosts-without-port" if pattern.kind == "exact" else ""
            message = f"`{value[:120]}` is another host in Istio once a port follows; policies see the host without it"
            place.at(at).refuse(message, remedy or "pass --hosts-without-port if callers send no port")
        patterns.append(pattern)
    return matches("context.request.host", patterns)


def methods(values: Sequence[str], place: Place) -> Test:
    """Return the test for `methods`, whose case matters."""
    for at, value in enumerate(values):
        if value != value.upper():
            place.at(at).note(f"the method `{value[:80]}` is not `{value.upper()[:80]}`, as in Istio", "check its case")
    return matches("context.request.method", [pattern_of(value) for value in values])


def ports(values: Sequence[str], place: Place) -> Test:
    """Return the test for `ports`; those of a workload, as its own Service has them."""
    numbers = []
    for at, value in enumerate(values):
        if not _PORT.fullmatch(value) or int(value) > 65535:
            place.at(at).refuse(f"`{value[:80]}` is no port", "write a number from 0 to 65535, in quotes")
        else:
            numbers.append(str(int(value)))
    distinct = list(dict.fromkeys(numbers))
    if len(distinct) == 1:
        return Test(f"context.destination.port == {distinct[0]}", opposite=f"context.destination.port != {distinct[0]}")
    return Test(f"[{', '.join(distinct)}].contains(context.destination.port)") if distinct else TRUE


def addresses(attribute: str, values: Sequence[str], place: Place) -> Test:
    """Return the test that an address is in one of these ranges (CIDR) or is one of these addresses."""
    tests = []
    for at, value in enumerate(values):
        try:
            net = ipaddress.ip_network(value, strict=False)
        except ValueError:
            net = None
        if net is None or ("/" in value and not _BITS.fullmatch(value[value.index("/") :])) or "%" in value:
            place.at(at).refuse(f"`{value[:80]}` is no address and no CIDR range", "write it as in `10.1.0.0/16`")
        elif isinstance(net, ipaddress.IPv6Network) and net.network_address.ipv4_mapped is not None:
            place.at(at).refuse(f"`{value[:80]}` is an IPv4 address written as IPv6", "write it as IPv4")
        else:
            single = net.prefixlen == net.max_prefixlen
            tests.append(Test(f"{attribute}.isInRange(ip({quoted(str(net.network_address) if single else str(net))}))"))
    return either(tests)


def header(name: str, values: Sequence[str], place: Place) -> Test:
    """Return the test for the header `name`; one that is absent matches nothing."""
    lower = name.lower()
    if not _TOKEN.fullmatch(name) or lower == "host":
        place.at("key").refuse(f"`{name[:80]}` is no ordinary header", "use `hosts`, `methods` or `paths`")
    elif lower in WITHHELD_HEADERS:
        message = f"policies do not see the header `{lower}`: proxies never send it to policyd"
        remedy = "decide on the verified user, `request.auth.principal` or its claims"
        if lower == PEER_HEADER:
            remedy = "decide on who asks, `source.principal`: what a peer calls itself proves nothing"
        place.at("key").refuse(message, remedy)
    tag = quoted(lower)
    present = Test(f"context.request.headers.hasTag({tag})")
    patterns = [pattern_of(value) for value in values]
    if any(one.kind == "present" for one in patterns):
        return present
    return both([present, matches(f"context.request.headers.getTag({tag})", patterns)])
