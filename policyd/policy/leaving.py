"""A request form that leads outside the mesh: by which sidecar it leaves, and which Host it is for.

Law: as on the wire. A Host is what some ServiceEntry declares for callers of that namespace, or with ALLOW_ANY any name
with a dot; and its ports are either for requests or for tunnels.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from policyd.cedar.http import Endpoint, HttpFacts
from policyd.mesh.hosts import resolve
from policyd.mesh.model import Instance, Mesh
from policyd.mesh.outside import HTTP_PORT, HTTPS_PORT, covers_name
from policyd.mesh.scope import scope_of
from policyd.policy.request_form import Form, refused
from policyd.spiffe import SpiffeId

_LOCAL: Final = "127.0.0.1"


def leaving(
    form: Form, mesh: Mesh, caller: SpiffeId | None, namespace: str, time: datetime, headers: Mapping[str, str]
) -> HttpFacts | None:
    """What the request is at the caller's own sidecar; None where it does not lead outside. Raises InvalidInput."""
    sender = next((one for _, one in sorted(mesh.instances.items()) if one.workload == caller), None)
    if resolve(form.host, namespace) in mesh.services or not _is_outside(form, mesh, namespace, sender):
        return None
    if sender is None:
        raise refused(f"`{form.caller}` has no sidecar to leave the mesh by", "name a workload of the mesh")
    return HttpFacts(
        principal=caller,
        service="",
        method=form.method,
        target=form.target,
        host=form.host,
        time=time,
        source=Endpoint(_LOCAL, 0),
        destination=Endpoint(_LOCAL, form.port or HTTP_PORT),
        instance=sender.name,
        headers=headers,
        outside=form.host,
        sni=form.host if _is_tls(form, mesh, namespace) else "",
    )


def _is_tls(form: Form, mesh: Mesh, namespace: str) -> bool:
    """Whether only clients of TLS that ask for the name get through a tunnel."""
    if not form.is_tunnel:
        return False
    seen = [one for one in mesh.outside if one.is_seen(namespace) and covers_name(one.host, form.host)]
    declared = [port.is_tls for one in seen for port in one.ports if port.number == form.port]
    return any(declared) if declared else form.port == HTTPS_PORT


def _is_outside(form: Form, mesh: Mesh, namespace: str, sender: Instance | None) -> bool:
    """Whether the name is a Host for a sender; raises InvalidInput for a port that it has not."""
    seen = [one for one in mesh.outside if one.is_seen(namespace) and covers_name(one.host, form.host)]
    ports = [port for one in seen for port in one.ports]
    fitting = {port.number for port in ports if port.is_http is not form.is_tunnel}
    if (form.port or HTTP_PORT) in fitting:
        return True
    if scope_of(mesh, sender).any_name if sender else mesh.outbound.mode == "ALLOW_ANY":
        return "." in form.host
    if not seen:
        return False
    listed = ", ".join(f"{one.number} ({one.protocol})" for one in ports)
    what = "tunnels lead to" if form.is_tunnel else "answers requests"
    raise refused(f"no port {form.port or HTTP_PORT} of the host `{form.host}` {what}", f"it has {listed}")
