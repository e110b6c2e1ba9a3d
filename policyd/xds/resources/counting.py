"""What an Envoy counts of requests and tunnels, for the mesh's metrics (access_loggers.stats.v3), and how peers know.

Law: nothing of it is asked of policyd or Python while a request waits. Who speaks is its certificate's say; what a peer
calls itself besides is believed of peers of the mesh only, is bounded, and reaches neither policies nor applications.
"""

from __future__ import annotations

from typing import Any, Final

from policyd import signals
from policyd.mesh.model import Instance, Served
from policyd.mesh.protocols import takes_connections, takes_requests
from policyd.names import METADATA_DECISION, METADATA_NAMESPACE, METADATA_PEER, METADATA_POLICY
from policyd.signals import Party
from policyd.xds.resources.model import GUARD, INNER, SNIFFED

_HTTP: Final = "type.googleapis.com/envoy.extensions.filters.http"
_AUTHZ: Final = "envoy.filters.http.ext_authz"
_CONNECT: Final = {"name": ":method", "string_match": {"exact": "CONNECT"}}
# of a tunnel that ends in the Envoy itself only what comes of it inside counts
_GOES_ON: Final = {
    "extension_filter": {
        "name": "envoy.access_loggers.extension_filters.cel",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            "expression": f"!(xds.cluster_name in ['{INNER}', '{GUARD}', '{SNIFFED}'] && response.code == 200)",
        },
    }
}
CONNECTED: Final = {"flush_access_log_on_connected": True}  # of the filter of connections
TUNNELS: Final = {"flush_log_on_tunnel_successfully_established": True}  # access_log_options of a connection manager

_DECISIONS: Final = {
    signals.DECISION: f"%DYNAMIC_METADATA({_AUTHZ}:{METADATA_DECISION})%",
    signals.POLICY: f"%DYNAMIC_METADATA({_AUTHZ}:{METADATA_POLICY})%",
}
_ANSWER: Final = {
    signals.CODE: "%RESPONSE_CODE%",
    signals.FLAGS: "%RESPONSE_FLAGS%",
    signals.GRPC_STATUS: "%GRPC_STATUS_NUMBER%",
}
_HEARD: Final = {
    signals.REMOTE: f"%DYNAMIC_METADATA({METADATA_NAMESPACE}:{METADATA_PEER}):{signals.MAX_PARTY}%",
    signals.REMOTE_ID: "%DOWNSTREAM_PEER_URI_SAN%",
}
_REACHED: Final = {
    signals.REMOTE: f"%UPSTREAM_METADATA({METADATA_NAMESPACE}:{METADATA_PEER})%",
    signals.REMOTE_ID: "%UPSTREAM_PEER_URI_SAN%",
    signals.CLUSTER: "%UPSTREAM_CLUSTER_RAW%",
}


def party(instance: Instance) -> Party:
    """What people know an instance by, from its labels as Kubernetes and Istio name them."""
    name, _, namespace = instance.service.partition(".")
    labels = instance.labels
    app = labels.get("service.istio.io/canonical-name") or labels.get("app.kubernetes.io/name") or labels.get("app")
    version = labels.get("service.istio.io/canonical-revision") or labels.get("version")
    return Party(instance.name, namespace, app or name, version or "latest", instance.service)


def endpoint_metadata(instance: Instance) -> dict[str, Any]:
    """What callers' Envoys are told about an endpoint (core.v3.Metadata.filter_metadata)."""
    return {METADATA_NAMESPACE: {METADATA_PEER: str(party(instance))}}


# ---- filters


def says_who(instance: Instance) -> dict[str, Any]:
    """Tells peers which instance speaks, whatever the caller claims (header_mutation.v3)."""
    header = {"key": signals.PEER_HEADER, "value": str(party(instance)).replace("%", "%%")}
    append = {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return _mutation({"append": append})


def hears_who() -> dict[str, Any]:
    """Notes which instance of a peer speaks, and takes the note away from the request (header_to_metadata.v3)."""
    present = {"metadata_namespace": METADATA_NAMESPACE, "key": METADATA_PEER, "type": "STRING"}
    rule = {"header": signals.PEER_HEADER, "on_header_present": present}
    config = {"@type": f"{_HTTP}.header_to_metadata.v3.Config", "request_rules": [{**rule, "remove": True}]}
    return {"name": "envoy.filters.http.header_to_metadata", "typed_config": config}


def _mutation(mutation: dict[str, Any]) -> dict[str, Any]:
    config = {
        "@type": f"{_HTTP}.header_mutation.v3.HeaderMutation",
        "mutations": {"request_mutations": [mutation]},
    }
    return {"name": "envoy.filters.http.header_mutation", "typed_config": config}


# takes the note away: from strangers' requests, and from those that leave the mesh
TELLS_NOBODY: Final = _mutation({"remove": signals.PEER_HEADER})


# ---- access loggers


def inbound(instance: Instance, served: Served, *, encrypted: bool) -> list[dict[str, Any]]:
    """What the sidecar of who is asked counts at a port; of plain text it knows no peer."""
    tags = {**_local(instance), **(_HEARD if encrypted else {signals.SECURITY: signals.PLAINTEXT}), **_ANSWER}
    requests = [_of_requests(tags)] if takes_requests(served.protocol) else []
    return [*requests, *(_of_tunnels(tags) if takes_connections(served.protocol) else ())]


def outbound(instance: Instance) -> list[dict[str, Any]]:
    """What the Envoy of who asks counts, a gateway too."""
    tags = {**_local(instance), **_REACHED, **_ANSWER}
    return [_of_requests(tags), *_of_tunnels(tags, _GOES_ON)]


def inside(instance: Instance) -> list[dict[str, Any]]:
    """What it counts of requests that came through a tunnel within it."""
    return [_of_requests({**_local(instance), **_REACHED, **_ANSWER})]


def connections(instance: Instance) -> list[dict[str, Any]]:
    """What it counts of connections that become tunnels within it."""
    tags = _listed({**_local(instance), **_REACHED})
    return [
        _logger([_at("TcpUpstreamConnected")], _opened(tags)),
        _logger([_at("TcpConnectionEnd")], _closed(tags, tags)),
    ]


def _local(instance: Instance) -> dict[str, str]:
    return {signals.LOCAL: f"{party(instance)}|{instance.workload}".replace("%", "%%")}


def _listed(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value_format": value} for name, value in tags.items()]


def _of_requests(tags: dict[str, str]) -> dict[str, Any]:
    plain = {"header_filter": {"header": {**_CONNECT, "invert_match": True}}}
    return _logger([plain, ENDED], _requests(_listed({**tags, **_DECISIONS}), _listed(tags)))


def _of_tunnels(tags: dict[str, str], *which: dict[str, Any]) -> list[dict[str, Any]]:
    tunnel = {"header_filter": {"header": _CONNECT}}
    decided = _listed({**tags, **_DECISIONS})
    return [
        _logger([tunnel, *which, _at("DownstreamTunnelSuccessfullyEstablished")], _opened(decided)),
        _logger([tunnel, *which, ENDED], _closed(decided, _listed(tags))),
    ]


def _at(moment: str) -> dict[str, Any]:
    return {"log_type_filter": {"types": [moment]}}


ENDED: Final = _at("DownstreamEnd")


def _logger(filters: list[dict[str, Any]], counts: dict[str, Any]) -> dict[str, Any]:
    config = {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config",
        "stats_scope": {
            "prefix": signals.PREFIX,
            "max_counters": signals.MAX_SERIES,
            "max_histograms": signals.MAX_SERIES,
        },
        **counts,
    }
    return {
        "name": "envoy.access_loggers.stats",
        "filter": {"and_filter": {"filters": filters}} if len(filters) > 1 else filters[0],
        "typed_config": config,
    }


def _requests(tags: list[dict[str, str]], few: list[dict[str, str]]) -> dict[str, Any]:
    """How many there were; how long they took and how large they were without what was decided."""
    timed = {"stat": {"name": signals.DURATION, "tags": few}, "unit": "Milliseconds"}
    sizes = [
        {"stat": {"name": name, "tags": few}, "unit": "Bytes", "value_format": value}
        for name, value in ((signals.REQUEST_BYTES, "%BYTES_RECEIVED%"), (signals.RESPONSE_BYTES, "%BYTES_SENT%"))
    ]
    return {
        "counters": [_one(signals.REQUESTS, tags)],
        "histograms": [{**timed, "value_format": "%DURATION%"}, *sizes],
    }


def _opened(tags: list[dict[str, str]]) -> dict[str, Any]:
    return {"counters": [_one(signals.OPENED, tags)]}


def _closed(tags: list[dict[str, str]], few: list[dict[str, str]]) -> dict[str, Any]:
    moved = [
        {"stat": {"name": name, "tags": few}, "value_format": value}
        for name, value in ((signals.RECEIVED, "%BYTES_RECEIVED%"), (signals.SENT, "%BYTES_SENT%"))
    ]
    return {"counters": [_one(signals.CLOSED, tags), *moved]}


def _one(name: str, tags: list[dict[str, str]]) -> dict[str, Any]:
    return {"stat": {"name": name, "tags": tags}, "value_fixed": 1}
