"""What an Envoy counts of requests and tunnels, for the mesh's metrics (access_loggers.stats.v3), and how peers know.

Law: nothing of it is asked of policyd or Python while a request waits. Who speaks is its certificate's say; what a peer
calls itself besides is believed of peers of the mesh only, is bounded, and reaches neither policies nor applications.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from policyd import names, signals
from policyd.mesh.model import Instance, Served
from policyd.mesh.protocols import takes_connections, takes_requests
from policyd.mesh.telemetry import Count
from policyd.names import (
    AUTHZ_FILTER,
    METADATA_DECISION,
    METADATA_NAMESPACE,
    METADATA_PEER,
    METADATA_POLICY,
    RBAC_FILTER,
    RBAC_RESULT,
    RBAC_RULE,
    STATE_PEER,
)
from policyd.signals import Party
from policyd.xds.resources.model import GUARD, INNER, SNIFFED

Tags = dict[str, str]  # by their names, each in the words of access logs
Counts = Mapping[str, Count]  # what Telemetries say of metrics, by their names

_HTTP: Final = "type.googleapis.com/envoy.extensions.filters.http"
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
MAX_LABEL: Final = 128  # bytes of a label's value that a Telemetry adds
AS_IT_IS: Final = Count()
MESSAGES: Final = (names.MESH_REQUEST_MESSAGES, names.MESH_RESPONSE_MESSAGES)
NONE: Final[Mapping[str, Count]] = {}
# tags that other labels come from, too: which protocol it was, and who stands at the ends
_NEEDED: Final = frozenset({signals.GRPC_STATUS, signals.LOCAL, signals.REMOTE, signals.CLUSTER})
CONNECTED: Final = {"flush_access_log_on_connected": True}  # of the filter of connections
TUNNELS: Final = {"flush_log_on_tunnel_successfully_established": True}  # access_log_options of a connection manager

_DECISIONS: Final = {
    signals.DECISION: f"%DYNAMIC_METADATA({AUTHZ_FILTER}:{METADATA_DECISION})%",
    signals.POLICY: f"%DYNAMIC_METADATA({AUTHZ_FILTER}:{METADATA_POLICY})%",
}
# as its filter leaves them: words for people would cost a request 15,000 instructions each
_OWN_DECISIONS: Final = {
    signals.RESULT: f"%DYNAMIC_METADATA({RBAC_FILTER}:{RBAC_RESULT})%",
    signals.RULE: f"%DYNAMIC_METADATA({RBAC_FILTER}:{RBAC_RULE})%",
}
_ANSWER: Final = {
    signals.CODE: "%RESPONSE_CODE%",
    signals.FLAGS: "%RESPONSE_FLAGS%",
    signals.GRPC_STATUS: "%GRPC_STATUS_NUMBER%",
}
_HEARD: Final = {
    signals.REMOTE: f"%FILTER_STATE({STATE_PEER}:PLAIN)%",
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
    """Notes which instance of a peer speaks, in filter state (set_filter_state.v3): what takes the fewest instructions.

    The header is on the request until it is handed on (`TELLS_NOBODY`): nothing between may show it to anyone.
    """
    note = {
        "object_key": STATE_PEER,
        "factory_key": "envoy.string",
        "format_string": {
            "text_format_source": {"inline_string": f"%REQ({signals.PEER_HEADER}):{signals.MAX_PARTY}%"},
            "omit_empty_values": True,
        },
        "skip_if_empty": True,
    }
    config = {"@type": f"{_HTTP}.set_filter_state.v3.Config", "on_request_headers": [note]}
    return {"name": STATE_PEER, "typed_config": config}


def removes(*headers: str) -> dict[str, Any]:
    """Takes words of our own out of what leaves."""
    config = {
        "@type": f"{_HTTP}.header_mutation.v3.HeaderMutation",
        "mutations": {"request_mutations": [{"remove": header} for header in headers]},
    }
    return {"name": "envoy.filters.http.header_mutation", "typed_config": config}


def _mutation(mutation: dict[str, Any]) -> dict[str, Any]:
    config = {
        "@type": f"{_HTTP}.header_mutation.v3.HeaderMutation",
        "mutations": {"request_mutations": [mutation]},
    }
    return {"name": "envoy.filters.http.header_mutation", "typed_config": config}


# of routes to an application (RouteConfiguration): a peer's note ends here, and so does what a stranger makes look like
# one; a filter that takes it away costs each request as many instructions again as all that is counted by one metric
TELLS_NOBODY: Final = {"request_headers_to_remove": [signals.PEER_HEADER]}


# ---- access loggers


def inbound(
    instance: Instance, served: Served, *, encrypted: bool, counts: Counts = NONE, either: bool = False
) -> list[dict[str, Any]]:
    """What the sidecar of who is asked counts at a port; of plain text it knows no peer.

    `either` is whether it may decide by itself there, not policyd only.
    """
    tags = {**_local(instance), **(_HEARD if encrypted else {signals.SECURITY: signals.PLAINTEXT}), **_ANSWER}
    requests = _of_requests(tags, counts, either=either) if takes_requests(served.protocol) else []
    return [*requests, *(_of_tunnels(tags, counts, either=either) if takes_connections(served.protocol) else ())]


def outbound(instance: Instance, counts: Counts = NONE) -> list[dict[str, Any]]:
    """What the Envoy of who asks counts, a gateway too."""
    tags = {**_local(instance), **_REACHED, **_ANSWER}
    return [*_of_requests(tags, counts), *_of_tunnels(tags, counts, _GOES_ON)]


def inside(instance: Instance, counts: Counts = NONE) -> list[dict[str, Any]]:
    """What it counts of requests that came through a tunnel within it."""
    return _of_requests({**_local(instance), **_REACHED, **_ANSWER}, counts)


def connections(instance: Instance, counts: Counts = NONE) -> list[dict[str, Any]]:
    """What it counts of connections that become tunnels within it."""
    tags = {**_local(instance), **_REACHED}
    return [
        *_logger([_at("TcpUpstreamConnected")], _opened(tags, counts)),
        *_logger([_at("TcpConnectionEnd")], _closed(tags, tags, counts)),
    ]


def _local(instance: Instance) -> dict[str, str]:
    told = f"{party(instance)}|{instance.workload}"
    return {signals.LOCAL: told.replace(signals.FOLD, " ").replace("%", "%%")}


def _of_requests(tags: Tags, counts: Counts, *, either: bool = False) -> list[dict[str, Any]]:
    plain = {"header_filter": {"header": {**_CONNECT, "invert_match": True}}}
    own = _OWN_DECISIONS if either else {}
    return _logger([plain, ENDED], _requests({**tags, **_DECISIONS, **own}, tags, counts))


def _of_tunnels(tags: Tags, counts: Counts, *which: dict[str, Any], either: bool = False) -> list[dict[str, Any]]:
    tunnel = {"header_filter": {"header": _CONNECT}}
    decided = {**tags, **_DECISIONS, **(_OWN_DECISIONS if either else {})}
    opened = [tunnel, *which, _OPENED]
    return [
        *_logger(opened, _opened(decided, counts)),
        *_logger([tunnel, *which, ENDED], _closed(decided, tags, counts)),
    ]


def _at(moment: str) -> dict[str, Any]:
    return {"log_type_filter": {"types": [moment]}}


ENDED: Final = _at("DownstreamEnd")
_OPENED: Final = _at("DownstreamTunnelSuccessfullyEstablished")
_NOT_OPENED: Final = {  # Envoy's answer to who gets a tunnel is 200, and nothing else is
    "status_code_filter": {"comparison": {"op": "NE", "value": {"default_value": 200, "runtime_key": "policyd.opened"}}}
}
# of a connection, once: when there is one, or else when it is clear that there will be none
SETTLED: Final = {"or_filter": {"filters": [_OPENED, {"and_filter": {"filters": [ENDED, _NOT_OPENED]}}]}}


def _logger(filters: list[dict[str, Any]], counted: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The logger that counts this, none where nothing is left to count."""
    left = {kind: stats for kind, stats in counted.items() if stats}
    config = {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config",
        "stats_scope": {
            "prefix": names.MESH_PREFIX,
            "max_counters": signals.MAX_SERIES,
            "max_histograms": signals.MAX_SERIES,
        },
        **left,
    }
    logger = {
        "name": "envoy.access_loggers.stats",
        "filter": {"and_filter": {"filters": filters}} if len(filters) > 1 else filters[0],
        "typed_config": config,
    }
    return [logger] if left else []


def _requests(tags: Tags, few: Tags, counts: Counts) -> dict[str, list[dict[str, Any]]]:
    """How many there were; how long they took and how large they were without what was decided."""
    timed = _stat(names.MESH_DURATION, few, counts, unit="Milliseconds", value_format="%DURATION%")
    sizes = (
        _stat(name, few, counts, unit="Bytes", value_format=value)
        for name, value in ((names.MESH_REQUEST_BYTES, "%BYTES_RECEIVED%"), (names.MESH_RESPONSE_BYTES, "%BYTES_SENT%"))
    )
    return {
        "counters": _stat(names.MESH_REQUESTS, tags, counts, value_fixed=1),
        "histograms": [*timed, *(one for size in sizes for one in size)],
    }


def _opened(tags: Tags, counts: Counts) -> dict[str, list[dict[str, Any]]]:
    return {"counters": _stat(names.MESH_OPENED, tags, counts, value_fixed=1)}


def _closed(tags: Tags, few: Tags, counts: Counts) -> dict[str, list[dict[str, Any]]]:
    received = _stat(names.MESH_RECEIVED, few, counts, value_format="%BYTES_RECEIVED%")
    sent = _stat(names.MESH_SENT, few, counts, value_format="%BYTES_SENT%")
    return {"counters": [*_stat(names.MESH_CLOSED, tags, counts, value_fixed=1), *received, *sent]}


def _stat(name: str, tags: Tags, counts: Counts, **value: Any) -> list[dict[str, Any]]:
    """A metric as it is counted, and as Telemetries will have it; none where they will not."""
    count = counts.get(name, AS_IT_IS)
    if count.disabled:
        return []
    listed = [{"name": tag, "value_format": form} for tag, form in _overridden(tags, count.labels).items()]
    return [{"stat": {"name": name, "tags": listed}, **value}]


def _overridden(tags: Tags, labels: Mapping[str, str | None]) -> Tags:
    """The tags with labels added, set to another value, and taken away: from what is counted by, where they are that
    by themselves, else by who collects it.
    """
    if not labels:
        return signals.folded(tags)
    removed = sorted(name for name, value in labels.items() if value is None)
    gone = set(removed)
    if signals.CLUSTER in tags:  # of who asks the other end is the destination
        gone |= {signals.REMOTE_ID} if f"{signals.DESTINATION}_principal" in removed else set()
    elif f"{signals.SOURCE}_principal" in removed:
        gone.add(signals.REMOTE_ID)
    added = {name: f"%CEL({value}):{MAX_LABEL}%" for name, value in labels.items() if value is not None}
    kept = {name: form for name, form in tags.items() if name not in added and (name not in gone or name in _NEEDED)}
    return {**signals.folded(kept), **added, **({signals.WITHOUT: ",".join(removed)} if removed else {})}
