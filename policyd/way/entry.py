"""Where a request `FROM METHOD URL` enters: at the caller's own sidecar, or for strangers at a gateway.

Law: the URL is the caller's: its host is what Host says unless a header says otherwise, and `https` is TLS with that
name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from policyd.mesh.hosts import covers, resolve
from policyd.mesh.model import Instance, Mesh
from policyd.policy.request_form import ANONYMOUS, Form, parse_form, refused
from policyd.policy.resolving import caller_of
from policyd.way.follow import IN_CLEAR, Connection, Follower
from policyd.way.model import Hop
from policyd.xds.walk.asked import Asked
from policyd.xds.walk.match import choose
from policyd.xds.walk.sent import Sent, manager
from policyd.xds.walk.step import chain_for

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Entry:
    """The listener that a request comes to first, and how."""

    instance: Instance
    listener: str
    asked: Asked
    connection: Connection = IN_CLEAR


def way_of(text: str, follower: Follower, mesh: Mesh, headers: Mapping[str, str]) -> Hop:
    """The way of `FROM METHOD URL`; raises InvalidInput for a request that means nothing."""
    entry = entry_of(text, follower, mesh, headers)
    return follower.follow(entry.instance, entry.listener, entry.asked, entry.connection)


def entry_of(text: str, follower: Follower, mesh: Mesh, headers: Mapping[str, str]) -> Entry:
    """Where a request enters; raises InvalidInput."""
    secure = " https://" in text
    form = parse_form(text.replace(" https://", " http://", 1) if secure else text)
    scheme = "https" if secure else "http"
    given = {name: value for name, value in headers.items() if name != "host"}
    authority = headers.get("host", form.host + (f":{form.port}" if form.port else ""))
    asked = Asked(form.method, authority, "" if form.is_tunnel else form.target, scheme, given)
    if form.caller != ANONYMOUS:
        if secure:
            raise refused("an application speaks plain HTTP to its sidecar, which opens TLS itself", "write http://")
        return _own(form, mesh, asked)
    return _edge(form, follower, mesh, asked, secure)


def _own(form: Form, mesh: Mesh, asked: Asked) -> Entry:
    """The caller's own sidecar; of several instances the named one, or the first."""
    workload = caller_of(form.caller, mesh)
    bearers = [one for _, one in sorted(mesh.instances.items()) if one.workload == workload]
    named = [one for one in bearers if one.name == form.caller]
    for one in (*named, *bearers):
        if one.role == "sidecar":
            return Entry(one, f"{one.name}/outbound", asked)
    if bearers:
        message = f"`{form.caller}` is a gateway, which only passes on what comes in"
        raise refused(message, f"ask as strangers do: `{ANONYMOUS} {form.method} {form.url}`")
    raise refused(f"no instance of `{form.caller}` runs here", "name a workload that workloads.yaml has")


def _edge(form: Form, follower: Follower, mesh: Mesh, asked: Asked, secure: bool) -> Entry:
    """The gateway or the sidecar of the Service that the URL names; else the gateway that serves its host."""
    tried = (Connection(True, form.host), Connection(False, form.host)) if form.is_tunnel else ()
    ways = tried or (Connection(secure, form.host),)
    service = mesh.services.get(resolve(form.host, "default") or "")
    serving = mesh.instances_of(service.id) if service is not None else ()
    gateways = [one for _, one in sorted(mesh.instances.items()) if one.role == "gateway"]
    otherwise: Entry | None = None
    for instance, connection in ((one, way) for one in serving or gateways for way in ways):
        sent = follower.sent(instance.name)
        found = _listeners(instance, sent, form.port, connection) if instance.role == "gateway" else _inbound(sent)
        for listener in found:
            entry = Entry(instance, listener, asked, connection)
            if (serving and not form.is_tunnel) or _serves(sent, listener, asked, connection):
                return entry
            otherwise = otherwise or entry
    if otherwise is not None and (serving or _is_open(mesh, asked.host)):
        return otherwise
    if serving:
        raise refused(f"nothing listens at `{form.url}`", f"a Gateway opens the ports of `{serving[0].name}`")
    known = {host for gateway in mesh.gateways for server in gateway.spec.servers for host in server.bare_hosts}
    known |= {one.name for one in mesh.services.values()}
    near = difflib.get_close_matches(form.host, sorted(known), 1)
    remedy = f"did you mean `{near[0]}`?" if near else f"strangers reach {', '.join(sorted(known)[:12]) or 'nothing'}"
    raise refused(f"no gateway serves `{form.host}`", remedy)


def _is_open(mesh: Mesh, host: str) -> bool:
    """Whether a server of some Gateway is for a host, whatever routes there are."""
    hosts = (one for gateway in mesh.gateways for server in gateway.spec.servers for one in server.bare_hosts)
    return any(covers(one, host) for one in hosts)


def _inbound(sent: Sent) -> Iterator[str]:
    """The listeners of a sidecar that others reach."""
    return (config["name"] for config in sent.listeners() if config.get("traffic_direction") == "INBOUND")


def _listeners(instance: Instance, sent: Sent, port: int, connection: Connection) -> Iterator[str]:
    """The listeners of a gateway for a port, its declared or its real one; without one every one that fits."""
    for listen in instance.listens:
        if port in (0, listen.declared, listen.actual):
            for config in sent.listeners():
                at = config.get("address", {}).get("socket_address", {}).get("port_value")
                fits = chain_for(config, encrypted=connection.encrypted, name=connection.name) is not None
                if at == listen.actual and (port or fits):
                    yield config["name"]


def _serves(sent: Sent, listener: str, asked: Asked, connection: Connection) -> bool:
    """Whether a listener has routes for the very Host, those for any host apart from an answer of 404."""
    chain = chain_for(sent.listener(listener) or {}, encrypted=connection.encrypted, name=connection.name)
    config = manager(chain) if chain is not None else None
    if config is None or chain is None:
        return asked.is_tunnel and chain is not None
    if asked.is_tunnel:
        return False
    table = config.get("route_config") or sent.routes(config.get("rds", {}).get("route_config_name", "")) or {}
    return any(len(one.virtual_host.get("routes", ())) > 1 for one in choose(table, asked))
