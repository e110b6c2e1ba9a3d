"""What a request form is in a mesh: who asks, what is asked, and which instance.

Law: names mean what they mean on the wire. A URL's host is resolved as a sidecar of the caller's namespace would, and a
name outside the mesh is a Host; at a listener that verifies nobody, everybody is anonymous.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Final

from policyd.cedar.http import Endpoint, HttpFacts
from policyd.errors import SpiffeIdError
from policyd.mesh.hosts import resolve
from policyd.mesh.model import Instance, Listener, Mesh, Service
from policyd.mesh.service_names import default_port
from policyd.policy.end_user import Shown, end_user
from policyd.policy.leaving import leaving
from policyd.policy.request_form import ANONYMOUS, Form, refused
from policyd.spiffe import SCHEME, SpiffeId

_DEFAULT_NAMESPACE: Final = "default"  # of callers whose identity has none
_LOCAL: Final = Endpoint("127.0.0.1", 0)  # where a request asked offline comes from


def resolve_form(
    form: Form,
    mesh: Mesh,
    time: datetime,
    headers: Mapping[str, str] | None = None,
    user: Shown | None = None,
) -> HttpFacts:
    """What the request is in a Mesh: who asks, and which instance (the first by name) is asked; raises
    InvalidInput.

    `headers` have names in lower case; Host is the URL's. `user` is whom a token in the request proves.
    """
    caller = caller_of(form.caller, mesh)
    if (out := leaving(form, mesh, caller, _namespace(caller), time, headers or {})) is not None:
        if user is not None:
            end_user(user, form.host, {})  # which is refused: nobody verifies tokens on the way out
        return out
    service, port = _asked(form, mesh, caller)
    instance = _instance(mesh, service, port)
    listeners = _listeners(mesh, instance, port) if instance else []
    issuers = {issuer: split for one in listeners for issuer, split in one.issuers.items()}
    return HttpFacts(
        principal=caller if not listeners or any(one.verifies_peers for one in listeners) else None,
        service=service.id,
        method=form.method,
        target=form.target,
        host=form.host,
        time=time,
        source=_LOCAL,
        destination=Endpoint(instance.address if instance else _LOCAL.ip, port),
        instance=instance.name if instance else "",
        headers=headers or {},
        sni=_sni(form, service, port),
        user=end_user(user, service.id, issuers) if user else None,
    )


def as_client(facts: HttpFacts, client: str, mesh: Mesh) -> HttpFacts:
    """The same of a client with an address ("": as it is) at a gateway that is told it; raises InvalidInput."""
    gateway = mesh.instances.get(facts.instance)
    if not client:
        return facts
    if gateway is not None and gateway.role == "gateway" and facts.principal is None:
        if gateway.trusted_proxies:
            return facts._replace(client=client)
        if gateway.proxied_by:
            return facts._replace(source=Endpoint(client, facts.source.port))
    message = f"nobody is believed about a client's address where `{facts.host}` is asked"
    remedy = "remove `client`, or give the gateway a `gatewayTopology`"
    raise refused(message, remedy)


def resolve_at(
    form: Form, instance: str, mesh: Mesh, time: datetime, headers: Mapping[str, str] | None = None
) -> HttpFacts:
    """What the request is where it reaches one instance, whose own Service is what is asked about; raises
    InvalidInput, for what would not reach it too.
    """
    found = mesh.instances.get(instance)
    if found is None:
        raise refused(f"no instance is called `{instance[:80]}`", nearest_of(instance, mesh.instances))
    caller = caller_of(form.caller, mesh)
    if (out := leaving(form, mesh, caller, _namespace(caller), time, headers or {})) is not None:
        if found.workload != caller:
            raise refused(f"`{form.host}` is outside, and `{form.caller}` does not leave the mesh by `{instance}`", "")
        return out._replace(instance=instance)
    service, port = _asked(form, mesh, caller)
    serving = mesh.instances_of(service.id)
    if found not in serving:
        names = ", ".join(f"`{one.name}`" for one in serving[:12]) or "no instance"
        raise refused(f"`{form.host}` is not served by `{instance}`", f"requests to it reach {names}")
    listeners = [one for one in mesh.listeners.values() if one.instance == instance and one.side != "egress"]
    if not listeners:
        raise refused(f"nothing listens at `{instance}`", "a Gateway opens the ports of a gateway")
    served = mesh.reached(found, service.id, port)
    wanted = served.service_port if served else port
    listener = next((one for one in listeners if one.port == wanted), listeners[0])
    return HttpFacts(
        principal=caller if listener.verifies_peers else None,
        service=listener.service,
        method=form.method,
        target=form.target,
        host=form.host,
        time=time,
        source=_LOCAL,
        destination=Endpoint(found.address, listener.port),
        instance=instance,
        headers=headers or {},
        sni=_sni(form, service, port),
    )


def _sni(form: Form, service: Service, port: int) -> str:
    """What the client in a tunnel of TLS asks for: what the tunnel was asked for."""
    found = service.port(port)
    return form.host if found is not None and found.protocol == "tls" else ""


def _asked(form: Form, mesh: Mesh, caller: SpiffeId | None) -> tuple[Service, int]:
    """The Service and the port that a URL means for its caller."""
    namespace = _namespace(caller)
    service = mesh.services.get(resolve(form.host, namespace) or "")
    if service is None:
        known = [one.name if one.namespace == namespace else one.id for one in mesh.services.values()]
        known += [one.host for one in mesh.outside if one.is_seen(namespace)]
        raise refused(f"no service is called `{form.host}` for callers in `{namespace}`", nearest_of(form.host, known))
    port = form.port or default_port(service)
    found = service.port(port)
    if found is not None and not (found.takes_connections if form.is_tunnel else found.takes_requests):
        raise refused(*_SPEAKS[form.is_tunnel](service.id, port))
    if found is None:
        listed = ", ".join(str(one.number) for one in service.ports)
        raise refused(f"the service `{service.id}` has no port {port}", f"it has {listed}")
    return service, port


_SPEAKS: Final[Mapping[bool, Callable[[str, int], tuple[str, str]]]] = {
    True: lambda id_, port: (
        f"port {port} of `{id_}` speaks HTTP, so that no tunnel leads to it",
        "ask it, by GET or so",
    ),
    False: lambda id_, port: (f"port {port} of `{id_}` speaks TCP, and answers no requests", "write CONNECT host:port"),
}


def _namespace(caller: SpiffeId | None) -> str:
    return (caller.namespace if caller else None) or _DEFAULT_NAMESPACE


def _instance(mesh: Mesh, service: Service, port: int) -> Instance | None:
    """The first instance whose own Service this is, on that port if there is one."""
    own = [one for one in mesh.instances_of(service.id) if one.service == service.id]
    return next((one for one in own if mesh.reached(one, service.id, port)), own[0] if own else None)


def _listeners(mesh: Mesh, instance: Instance, port: int) -> list[Listener]:
    """The instance's listeners for that port."""
    listeners = [one for one in mesh.listeners.values() if one.instance == instance.name and one.side != "egress"]
    return [one for one in listeners if one.port == port] or listeners


def caller_of(name: str, mesh: Mesh) -> SpiffeId | None:
    """Who FROM is; None for anonymous."""
    if name == ANONYMOUS:
        return None
    if name.startswith(SCHEME):
        return _spiffe_id(name)
    if name in mesh.instances:
        return mesh.instances[name].workload
    service = mesh.services.get(name if "." in name else f"{name}.{_DEFAULT_NAMESPACE}")
    bearers = {one.workload for one in mesh.instances_of(service.id)} if service else set()
    if len(bearers) > 1:
        raise refused(f"the instances of `{name}` have different identities", "name one instance, or a SPIFFE ID")
    if bearers:
        return bearers.pop()
    account, _, namespace = name.partition(".")
    for id_ in mesh.workloads:
        if id_.service_account == account and id_.namespace == (namespace or _DEFAULT_NAMESPACE):
            return id_
    names = (one.name if one.namespace == _DEFAULT_NAMESPACE else one.id for one in mesh.services.values())
    known = [ANONYMOUS, *mesh.instances, *names]
    raise refused(f"`{name[:80]}` is nobody in the mesh", nearest_of(name, known))


def _spiffe_id(text: str) -> SpiffeId:
    try:
        return SpiffeId.parse(text)
    except SpiffeIdError as error:
        raise refused(error.message, error.remedy) from error


def nearest_of(name: str, known: Collection[str]) -> str:
    """Which of the known names was probably meant, else some of them.

    A name without its namespace is nearest to those that it begins.
    """
    whole = sorted({one for one in known if one.startswith(f"{name}.")})
    near = whole[:3] or difflib.get_close_matches(name, sorted(known), 1)
    if near:
        return f"did you mean {' or '.join(f'`{one}`' for one in near)}?"
    return f"there are {', '.join(sorted(set(known))[:12]) or 'none'}"
