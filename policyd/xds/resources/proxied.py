"""Connections by way of a load balancer, whose first bytes say who the client is (PROXY protocol, versions 1 and 2).

Law: that is believed of nobody but who may say it, by the address of the connection itself; of these each connection
says it, or is closed, as are all others.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Final

_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters.listener"
PROXY_PROTOCOL: Final = {
    "name": "envoy.filters.listener.proxy_protocol",
    "typed_config": {"@type": f"{_FILTERS}.proxy_protocol.v3.ProxyProtocol"},
}
PATIENCE: Final = "5s"  # for the header, and what shows whether TLS follows


def proxied(listener: dict[str, Any], ranges: Sequence[str]) -> dict[str, Any]:
    """A listener to which only addresses in `ranges` connect, each for somebody whom it names; none: as it was."""
    if not ranges:
        return listener
    sources = [_range(one) for one in ranges]
    chains = [
        {**chain, "filter_chain_match": {**chain.get("filter_chain_match", {}), "direct_source_prefix_ranges": sources}}
        for chain in listener["filter_chains"]
    ]
    return {
        **listener,
        "listener_filters": [PROXY_PROTOCOL, *listener.get("listener_filters", ())],  # before what looks at the rest
        "listener_filters_timeout": PATIENCE,
        "filter_chains": chains,
    }


def _range(text: str) -> dict[str, Any]:
    network = ipaddress.ip_network(text)
    return {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen}
