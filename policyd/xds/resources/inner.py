"""Tunnels that end in the sidecar itself, in a listener without a socket, where their bytes are looked at.

Law: what comes through such a tunnel is routed, made to fail, tried again and decided by the very same tables as if it
had been asked for plainly, HTTP/1.1 and HTTP/2 alike; so a tunnel goes around nothing, and one inside another neither.
"""

from __future__ import annotations

from typing import Any, Final

from policyd.names import (
    METADATA_ASKED,
    METADATA_CLUSTER,
    METADATA_LEAVES,
    METADATA_NAMESPACE,
    METADATA_TARGET,
    STATE_CLUSTER,
    STATE_TCP,
    STATE_TLS,
)
from policyd.xds.resources import filters, tcp
from policyd.xds.resources.model import INNER, OUTBOUND_ROUTES

TYPES: Final = "type.googleapis.com/envoy.extensions"
_FILTER: Final = "envoy.filters.http.set_filter_state"
_ORIGINAL_DST: Final = "envoy.filters.listener.original_dst"
# what the listener inside is told of the tunnel
ASKED: Final = "policyd.asked"  # the name that was asked for, and a colon after it
AUTHORITY: Final = "policyd.authority"  # and with its port
TARGET: Final = "policyd.target"  # what a forward proxy is asked for, if it leaves by one
CLUSTER: Final = STATE_CLUSTER  # by which it leaves
_AUTHORITY: Final = "%REQ(:AUTHORITY)%"


def cluster(name: str = INNER) -> dict[str, Any]:
    """The way from a tunnel to a listener inside."""
    address = {"envoy_internal_address": {"server_listener_name": name}}
    raw = {
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": {"@type": f"{TYPES}.transport_sockets.raw_buffer.v3.RawBuffer"},
    }
    passes_on = {
        "@type": f"{TYPES}.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
        "transport_socket": raw,
    }
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "transport_socket": {"name": "envoy.transport_sockets.internal_upstream", "typed_config": passes_on},
    }


def route() -> dict[str, Any]:
    """CONNECT ends here, and its bytes are read inside; nobody is asked before there is a request."""
    return into(INNER, {}, filters.unasked())


def into(name: str, marks: dict[str, str], said: dict[str, Any]) -> dict[str, Any]:
    """CONNECT ends in a listener inside, which is told where its bytes go, and what it is for (`names.METADATA_…`)."""
    told = {_FILTER: {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}}
    found = {**tcp.ending(name), "typed_per_filter_config": {**said, **told}}
    return found | ({"metadata": {"filter_metadata": {METADATA_NAMESPACE: marks}}} if marks else {})


def tells(asked: str = _AUTHORITY, *, by_proxy: bool = False) -> dict[str, Any]:
    """Tells the listeners inside of a tunnel: only routes into one have it do so (set_filter_state.v3.Config).

    `by_proxy`: some tunnels leave by a forward proxy.
    """
    keys = (METADATA_CLUSTER, METADATA_LEAVES, METADATA_ASKED, METADATA_TARGET)
    goes_to, leaves_by, is_for, target = (f"%METADATA(ROUTE:{METADATA_NAMESPACE}:{key})%" for key in keys)
    names = [
        _kept(ASKED, f"{asked}:", factory_key="envoy.string"),
        _kept(ASKED, is_for, factory_key="envoy.string", skip_if_empty=True),
    ]
    ways = [
        _kept(CLUSTER, leaves_by, factory_key="envoy.string", skip_if_empty=True),
        _kept(STATE_TCP, goes_to, skip_if_empty=True),
        *([_kept(TARGET, target, factory_key="envoy.string", skip_if_empty=True)] if by_proxy else []),
    ]
    return {"name": _FILTER, "typed_config": _notes(names, ways), "disabled": True}


def share(cluster: str, name: str) -> dict[str, Any]:
    """The same of one share of a route, which has no marks of its own: it leaves by `cluster`; `name` "": as asked."""
    names = [_kept(ASKED, f"{name or _AUTHORITY}:", factory_key="envoy.string")]
    return {_FILTER: _notes(names, [_kept(CLUSTER, cluster, factory_key="envoy.string")])}


def share_inside(cluster: str, encrypted: str = "") -> dict[str, Any]:
    """And of one that goes on to a cluster of the mesh, TLS for the tunnel's own name to that of `encrypted`."""
    if not encrypted:
        return {_FILTER: _notes([], [_kept(STATE_TCP, cluster)])}
    ways = [_kept(STATE_TCP, cluster), _kept(STATE_TLS, encrypted, factory_key="envoy.string")]
    return {_FILTER: _notes([_kept(ASKED, f"{_AUTHORITY}:", factory_key="envoy.string")], ways)}


def _notes(names: list[dict[str, Any]], ways: list[dict[str, Any]]) -> dict[str, Any]:
    kept = [
        *_ends(),
        *names,
        _kept(AUTHORITY, _AUTHORITY, factory_key="envoy.string"),
        *ways,
    ]
    return {"@type": f"{TYPES}.filters.http.set_filter_state.v3.Config", "on_request_headers": kept}


def _kept(key: str, text: str, **more: Any) -> dict[str, Any]:
    form = {"text_format_source": {"inline_string": text}, "omit_empty_values": True}
    return {"object_key": key, "format_string": form, "shared_with_upstream": "ONCE", **more}


def listener(as_outside: list[dict[str, Any]], observed: dict[str, Any]) -> dict[str, Any]:
    """What reads requests from tunnels: the application's own proxy once more, for who has shown its secret outside."""
    return internal(INNER, [{"filters": [requests(as_outside, observed)]}], knows_ends())


def internal(name: str, chains: list[dict[str, Any]], *looks: dict[str, Any]) -> dict[str, Any]:
    """A listener without a socket."""
    return {
        "name": name,
        "internal_listener": {},
        "traffic_direction": "OUTBOUND",
        "listener_filters": list(looks),
        "filter_chains": chains,
    }


def requests(as_outside: list[dict[str, Any]], observed: dict[str, Any]) -> dict[str, Any]:
    """The connection manager of a tunnel with requests in it."""
    return filters.manager(
        INNER,
        [*as_outside, tells()],
        filters.rds(OUTBOUND_ROUTES),
        server_header_transformation="PASS_THROUGH",
        preserve_external_request_id=True,
        skip_xff_append=True,
        stream_idle_timeout="0s",
        **observed,
    )


def goes_as_tls() -> dict[str, Any]:
    """The filter by which a connection of TLS goes where its tunnel says that TLS goes, if it says so."""
    to = _kept(STATE_TCP, f"%FILTER_STATE({STATE_TLS}:PLAIN)%", skip_if_empty=True)
    config = {"@type": f"{TYPES}.filters.network.set_filter_state.v3.Config", "on_new_connection": [to]}
    return {"name": "envoy.filters.network.set_filter_state", "typed_config": config}


def ends() -> dict[str, Any]:
    """The filter by which a connection tells the listener inside where it comes from, and whom it is for."""
    config = {"@type": f"{TYPES}.filters.network.set_filter_state.v3.Config", "on_new_connection": _ends()}
    return {"name": "envoy.filters.network.set_filter_state", "typed_config": config}


def _ends() -> list[dict[str, Any]]:
    return [
        _kept(f"{_ORIGINAL_DST}.local_ip", "%DOWNSTREAM_LOCAL_ADDRESS%"),
        _kept(f"{_ORIGINAL_DST}.remote_ip", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ]


def knows_ends() -> dict[str, Any]:
    """Where the application asks from, and whom, is known inside as it is outside (original_dst.v3.OriginalDst)."""
    ends = {"@type": f"{TYPES}.filters.listener.original_dst.v3.OriginalDst"}
    return {"name": _ORIGINAL_DST, "typed_config": ends}
