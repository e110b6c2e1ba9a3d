"""What of a plan will not do what its author expects on this machine.

Law: the machine is asked by arguments; nothing is refused here.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from proxy.capture.plan import VIRTUAL, Plan
from proxy.dns.resolvers import is_local


def leads_to(address: str) -> bool:
    """Whether this machine has a route to an address of IPv4; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, suppress(OSError):
        one.connect((address, 9))
        return True
    return False


def notes(
    plan: Plan, resolvers: Sequence[str], *, stub: bool, leads: Callable[[str], bool] = leads_to
) -> Iterator[str]:
    """What to tell; `resolvers` are those that the machine asks, `stub`: theirs are known by a file of their own."""
    if not plan.dns:
        return
    is_let_be = plan.other_uids or plan.other_gids or plan.included_uids or plan.included_gids
    if resolvers and is_local(tuple(resolvers)) and not stub and not is_let_be:
        yield (
            f"the resolver `{resolvers[0]}` runs on this machine, and what it asks is led to the agent, who asks it: "
            "exclude the user that it runs as, by --exclude-user"
        )
    for one in resolvers:
        address = ipaddress.ip_address(one.partition("%")[0])
        if network := next((network for network in plan.networks if address in network), None):
            yield f"the resolver `{one}` is in {network}, which is excluded: it is asked for names of the mesh, too"
    if plan.outbound and not leads(str(VIRTUAL[0].network_address + 1)):
        yield (
            f"nothing leads from this machine to {VIRTUAL[0]}, where names of the mesh have their addresses: add a "
            f"default route, or one by a network's interface, as in `ip route add {VIRTUAL[0]} dev eth0`"
        )
