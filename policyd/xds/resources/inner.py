"""Tunnels that end in the sidecar itself: an application may ask by CONNECT for what answers requests, as gRPC does.

Law: what comes through such a tunnel is routed, made to fail, tried again and decided by the very same tables as if it
had been asked for plainly, HTTP/1.1 and HTTP/2 alike; so a tunnel goes around nothing, and one inside another neither.
"""

from __future__ import annotations

from typing import Any, Final

from policyd.xds.resources import filters, tcp
from policyd.xds.resources.model import INNER, OUTBOUND_ROUTES

_TYPES: Final = "type.googleapis.com/envoy.extensions"
_ORIGINAL_DST: Final = "envoy.filters.listener.original_dst"
# what is known of the connection outside is known inside: where the application asks from, and whom
_ENDS: Final = {"local_ip": "%DOWNSTREAM_LOCAL_ADDRESS%", "remote_ip": "%DOWNSTREAM_REMOTE_ADDRESS%"}


def cluster() -> dict[str, Any]:
    """The way from the tunnel to the listener inside."""
    address = {"envoy_internal_address": {"server_listener_name": INNER}}
    raw = {
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": {"@type": f"{_TYPES}.transport_sockets.raw_buffer.v3.RawBuffer"},
    }
    passes_on = {
        "@type": f"{_TYPES}.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
        "transport_socket": raw,
    }
    return {
        "name": INNER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": INNER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "transport_socket": {"name": "envoy.transport_sockets.internal_upstream", "typed_config": passes_on},
    }


def route() -> dict[str, Any]:
    """CONNECT ends here, and its bytes are read inside; nobody is asked before there is a request."""
    return {**tcp.ending(INNER), "typed_per_filter_config": filters.unasked()}


def known_ends() -> dict[str, Any]:
    """Keeps the addresses of a connection for the listener inside (set_filter_state.v3.Config)."""
    kept = [
        {
            "object_key": f"{_ORIGINAL_DST}.{name}",
            "format_string": {"text_format_source": {"inline_string": address}},
            "shared_with_upstream": "ONCE",
        }
        for name, address in _ENDS.items()
    ]
    config = {"@type": f"{_TYPES}.filters.http.set_filter_state.v3.Config", "on_request_headers": kept}
    return {"name": "envoy.filters.http.set_filter_state", "typed_config": config}


def listener(as_outside: list[dict[str, Any]], counted: dict[str, Any]) -> dict[str, Any]:
    """What reads tunnels: the application's own proxy once more, for who has shown its secret outside."""
    ends = {"@type": f"{_TYPES}.filters.listener.original_dst.v3.OriginalDst"}
    inside = filters.manager(
        INNER,
        [*as_outside, known_ends()],
        filters.rds(OUTBOUND_ROUTES),
        server_header_transformation="PASS_THROUGH",
        preserve_external_request_id=True,
        skip_xff_append=True,
        stream_idle_timeout="0s",
        **counted,
    )
    return {
        "name": INNER,
        "internal_listener": {},
        "traffic_direction": "OUTBOUND",
        "listener_filters": [{"name": _ORIGINAL_DST, "typed_config": ends}],
        "filter_chains": [{"filters": [inside]}],
    }
