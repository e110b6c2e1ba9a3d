"""`policyd proxy ...`: the proxies as the control plane sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from policyd.cli.lazy import group
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb

TYPES: Final = ("clusters", "endpoints", "listeners", "routes")

app = group("The proxies: what each was sent and whether it took it.")


@app.command()
def status(directory: Dir = None, as_json: Json = False) -> None:
    """Show for each proxy whether it is connected, and whether it took what it was sent.

    synced: it has what is in force. sent: it has not answered yet. rejected: it refused, for the reason below the
    table, and goes on with what it had.
    """
    import time

    from policyd.cli import output
    from policyd.cli.instance import folder, server
    from policyd.cli.show import as_dict

    with server(folder(directory)) as client:
        proxies = client.proxies()
    if as_json:
        output.print_json({"proxies": [as_dict(proxy) for proxy in proxies]})
    else:
        output.show(*lines(proxies, int(time.time())))


def lines(proxies: Sequence[pb.ProxyStatus], now: int) -> Sequence[Any]:
    """Return what to print, at `now` in seconds since the epoch."""
    from policyd.cli import output
    from policyd.cli.show import since

    if not proxies:
        return ["no proxy is known yet; `policyd status` shows which instances are declared"]
    rows, rejections = [], []
    for proxy in proxies:
        states = {kind.type: kind for kind in proxy.types}
        connected = since(proxy.connected_at, now) if proxy.connected else "no"
        words = [states[name].state if name in states else "none" for name in TYPES]
        rows.append((proxy.instance, connected, proxy.envoy_version or "-", *words))
        rejections += [
            f"{proxy.instance} rejected {kind.type}: {output.clean(kind.rejection)}"
            for kind in proxy.types
            if kind.rejection
        ]
    headers = ("INSTANCE", "CONNECTED", "ENVOY", *(name.upper() for name in TYPES))
    return [output.table(headers, rows), *(["", *rejections] if rejections else [])]
