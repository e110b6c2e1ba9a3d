"""Where things are, for who wants to send a request: pure questions to the instances' places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb


def addresses(places: Sequence[pb.InstancePlace]) -> list[str]:
    """Return the address of each port of each gateway."""
    return [
        f"http://{_host(place.address)}:{listen.actual}/"
        for place in places
        if place.role == "gateway"
        for listen in place.listens
    ]


def front(places: Sequence[pb.InstancePlace], service: str, port: int | None) -> str | None:
    """Return `host:port` at which `service` (an id) is reached from outside.

    That is a gateway's listener for the declared `port`, its first one for None; of any other Service the sidecar of
    an instance, which hears nobody without a certificate. None where nothing serves it.
    """
    serving = [place for place in places if place.service == service]
    for place in serving:
        for listen in place.listens:
            if port in (None, listen.declared):
                return f"{_host(place.address)}:{listen.actual}"
    inbound = [(place, _inbound(place, port)) for place in serving if place.inbound_port]
    return f"{_host(inbound[0][0].address)}:{inbound[0][1]}" if inbound else None


def proxy_of(places: Sequence[pb.InstancePlace], name: str, workload: str) -> str | None:
    """Return the proxy of the instance `name`, else of the first that bears the SPIFFE ID `workload`, else None."""
    sidecars = [place for place in places if place.proxy_url]
    own = (place.proxy_url for place in sidecars if place.name == name)
    return next(own, next((place.proxy_url for place in sidecars if place.spiffe_id == workload), None))


def _inbound(place: pb.InstancePlace, port: int | None) -> int:
    """Where the sidecar of an instance is reached for a port of its service: the first one where none is meant."""
    return next((one.inbound_port for one in place.ports if one.service_port == port), place.inbound_port)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
