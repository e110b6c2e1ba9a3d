"""`policyd proxy ...`: the proxies as the control plane sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from policyd.cli.lazy import group
from policyd.cli.options import Dir, Json
from policyd.cli.proxy_config import config
from policyd.cli.proxy_diff import diff

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb

app = group("The proxies: what each was sent, whether it took it, and what it holds.")
app.command()(config)
app.command()(diff)


@app.command()
def status(directory: Dir = None, as_json: Json = False) -> None:
    """Show for each proxy whether it is connected, and whether it took what it was sent.

    synced: it has what is in force. stale: it was sent something and has not answered yet. NACK: it refused what it
    was sent, for the reason below the table, and goes on with what it had. not sent: it does not ask for such.
    """
    import time

    from policyd.cli import output
    from policyd.cli.show import as_dict
    from policyd.instance import folder, server

    with server(folder(directory)) as client:
        proxies = client.proxies()
    if as_json:
        output.print_json({"proxies": [as_dict(proxy) for proxy in proxies]})
    else:
        output.show(*lines(proxies, int(time.time())))


def lines(proxies: Sequence[pb.ProxyStatus], now: int) -> Sequence[Any]:
    """Return what to print, at `now` in seconds since the epoch."""
    from policyd.cli import output
    from policyd.wording import clean, since
    from policyd.xds.inspection.words import TYPES, word

    if not proxies:
        return ["no proxy is known yet; `policyd status` shows which instances are declared"]
    rows, rejections = [], []
    for proxy in proxies:
        states = {kind.type: kind for kind in proxy.types}
        connected = since(proxy.connected_at, now) if proxy.connected else "no"
        words = [word(states.get(name)) for name in TYPES]
        rows.append((proxy.instance, connected, proxy.envoy_version or "-", *words))
        rejections += [
            f"{proxy.instance} NACK {kind.type}: {clean(kind.rejection)}" for kind in proxy.types if kind.rejection
        ]
    headers = ("INSTANCE", "CONNECTED", "ENVOY", *(name.upper() for name in TYPES))
    return [output.table(headers, rows), *(["", *rejections] if rejections else [])]
