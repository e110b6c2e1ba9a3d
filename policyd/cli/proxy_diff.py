"""`policyd proxy diff NAME`: what one Envoy was sent against what it holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import typer

from policyd.cli.exits import Exit
from policyd.cli.options import Dir, Json
from policyd.cli.proxy_config import Instance

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb
    from policyd.admin_client import AdminClient
    from policyd.xds.inspection.diff import Difference, Sent

KINDS: Final = ("listeners", "routes", "clusters", "endpoints", "secrets")
LOOKS: Final = 4  # a change that is just on its way is no difference
PAUSE_SECONDS: Final = 0.5


def diff(name: Instance, directory: Dir = None, as_json: Json = False) -> None:
    """Compare what the Envoy of an instance was sent with what it holds now. Exit code 2 where they differ.

    A change that is just on its way is waited for, about two seconds. `policyd proxy status` says what Envoy said of
    what it rejected.
    """
    from policyd.cli import output
    from policyd.instance import folder, server

    with server(folder(directory)) as client:
        found = settled(lambda: differences(client, name), time.sleep)
    if as_json:
        output.print_json({"instance": name, "differences": [asdict(one) for one in found]})
    elif found:
        shown = [(one.kind, one.name, one.what, one.detail or "-") for one in found]
        output.show(output.table(("KIND", "NAME", "DIFFERENCE", "DETAIL"), shown))
    else:
        output.show(f"`{name}` holds what it was sent: {', '.join(KINDS)}")
    raise typer.Exit(Exit.DENIED if found else Exit.OK)


def settled(look: Callable[[], Sequence[Difference]], sleep: Callable[[float], object]) -> Sequence[Difference]:
    """What differs still after some looks."""
    found = look()
    for _ in range(LOOKS - 1):
        if not found:
            break
        sleep(PAUSE_SECONDS)
        found = look()
    return found


def differences(client: AdminClient, name: str) -> list[Difference]:
    """What differs now, of all kinds."""
    from policyd.envoy_api import shared
    from policyd.xds.agreed import IDENTITY_SECRET, ROOTS_SECRET
    from policyd.xds.inspection import diff as compare
    from policyd.xds.inspection.held import endpoints, resources, unpack

    found: list[Difference] = []
    for kind in KINDS:
        reply = client.inspect(name, kind, sent=True)
        held, sent = unpack(reply.held), [_sent(kind, one) for one in reply.sent]
        if kind == "endpoints":
            found += compare.endpoint_differences(sent, endpoints(held))
        elif kind == "secrets":
            own = frozenset({IDENTITY_SECRET, ROOTS_SECRET})
            found += compare.secret_differences(sent, resources(kind, held), own)
        else:
            found += compare.differences(kind, sent, resources(kind, held), shared())
    return found


def _sent(kind: str, one: pb.SentResource) -> Sent:
    from policyd import envoy_api
    from policyd.xds.inspection.diff import Sent
    from policyd.xds.snapshot import SHORT_NAMES

    if not one.body:
        return Sent(one.name, one.version)
    type_url = next(url for url, name in SHORT_NAMES.items() if name == kind)
    message = envoy_api.message(type_url.removeprefix(envoy_api.TYPE_PREFIX)).FromString(one.body)
    return Sent(one.name, one.version, envoy_api.to_dict(message))
