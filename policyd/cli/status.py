"""`policyd status`: what runs, whether it is ready, and what a refused change is refused for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from policyd.cli.lazy import leaf
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb

app = leaf()


@app.command()
def status(directory: Dir = None, as_json: Json = False) -> None:
    """Show what is running for a folder: whether it is ready, the revision in force, where each instance listens.

    With --json also the addresses with which applications reach their sidecars, which hold secrets.
    """
    import time

    from policyd.cli import output
    from policyd.cli.show import as_dict
    from policyd.instance import folder, server

    with server(folder(directory)) as client:
        reply, places = client.status(), client.instances()
    if as_json:
        output.print_json(as_dict(reply) | {"instances": [as_dict(place) for place in places]})
    else:
        output.show(*lines(reply, places, int(time.time())))


def lines(reply: pb.StatusReply, places: Sequence[pb.InstancePlace], now: int) -> Sequence[Any]:
    """Return what to print, at `now` in seconds since the epoch."""
    from policyd.cli import output
    from policyd.errors import Problem
    from policyd.wording import clean, short, since

    allowed = reply.decisions - reply.denials - reply.errors
    facts = [
        ("ready", "yes" if reply.ready else "no"),
        *([("because", reply.not_ready_because)] if reply.not_ready_because else []),
        ("trust domain", reply.trust_domain),
        ("policies", f"{reply.policies}, revision {short(reply.revision)}"),
        *([("shadow", shadow(reply.shadow))] if reply.HasField("shadow") else []),
        ("configuration", short(reply.config)),
        ("decisions", f"{allowed} allowed, {reply.denials} denied, {reply.errors} errors"),
        ("server", f"policyd {reply.version}, process {reply.pid}, for {since(reply.started_at, now)}"),
        ("http", f"http://{reply.http_address}/" if reply.http_address else "-"),
    ]
    shown: list[Any] = [output.facts(facts)]
    if reply.deciders:
        shown += ["", deciders(reply.deciders)]
    if places:
        rows = [(place.name, place.service, place.role, ports(place)) for place in places]
        shown += ["", output.table(("INSTANCE", "SERVICE", "ROLE", "LISTENS"), rows)]
    if probed := [(place.name, clean(place.health)) for place in places if place.health]:
        shown += ["", output.table(("PROBED", "HEALTH"), probed)]
    if reply.refused:
        shown += ["", "a change is refused, the last good one stays in force:"]
        shown += ["  " + clean(str(Problem(p.code, p.message, p.file, p.line, remedy=p.remedy))) for p in reply.refused]
    shown += [f"warning: {clean(warning)}" for warning in reply.warnings]
    return shown


def shadow(found: pb.Shadow) -> str:
    """Return what is tried beside the active policies, and what would have changed."""
    from policyd.wording import short

    source = f"of `{found.folder}`" if found.folder else "with those marked @shadow"
    answers = f"{found.agree} agree, {found.would_deny} would deny, {found.would_allow} would allow"
    answers += f", {found.errors} errors" + (f", {found.skipped} not asked for want of time" if found.skipped else "")
    return f"{found.policies} {source}, revision {short(found.revision)}: {answers}"


def deciders(found: Sequence[pb.Decider]) -> Any:
    """Return the table of decision processes."""
    from policyd.cli import output
    from policyd.wording import short

    rows = [
        (one.name, str(one.pid or "-"), one.address, one.state, short(one.revision) or "-", one.trouble or "-")
        for one in found
    ]
    return output.table(("DECIDES", "PROCESS", "ADDRESS", "STATE", "REVISION", "TROUBLE"), rows)


def ports(place: pb.InstancePlace) -> str:
    """Return where an instance listens, in words."""
    if place.role == "gateway":
        return ", ".join(f"http://{place.address}:{listen.actual}/" for listen in place.listens)
    if not place.outbound_port:  # no sidecar
        return "; ".join(f"{one.name}: application {one.inbound_port}" for one in place.ports)
    if len(place.ports) < 2:
        there = next((one.app_socket for one in place.ports if one.app_socket), place.app_port)
        return f"application {there}, sidecar {place.inbound_port}, proxy {place.outbound_port}"
    each = (
        f"{one.name}: application {one.app_socket or one.app_port}, sidecar {one.inbound_port}" for one in place.ports
    )
    return "; ".join((*each, f"proxy {place.outbound_port}"))
