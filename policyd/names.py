"""Every name that leaves the process in a metric, a header, a log field or dynamic metadata, in one place.

Law: names are here and nowhere else as literals; docs/reference is generated from these tables.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

DECISION_ID_HEADER: Final = "x-policyd-decision-id"

# ---- keys of ext_authz's context_extensions, put on routes by our own xDS
EXTENSION_LISTENER: Final = "policyd.listener"
EXTENSION_HOST: Final = "policyd.host"  # of a route to the outside: the Host, or the pattern of names that it leads to
EXTENSION_TLS: Final = "policyd.tls"  # and the name that clients in its tunnels ask for; `*`: the tunnel's own
EXTENSION_SAMPLED: Final = "policyd.sampled"  # of a decision that the proxy makes: policyd is asked beside it
EXTENSION_PORT: Final = "policyd.port"  # and its port; 0: the one that was asked for

# ---- the name that a client of TLS asks for, on the tunnels that a gateway makes of its connections
SNI_HEADER: Final = "x-policyd-sni"
# ---- where a tunnel goes, from one listener inside an Envoy to the next
CLUSTER_HEADER: Final = "x-policyd-cluster"
TARGET_HEADER: Final = "x-policyd-target"

# ---- dynamic metadata that our own listeners give a check, where many of them share their routes
METADATA_NAMESPACE: Final = "policyd"
METADATA_LISTENER: Final = "listener"
METADATA_CLUSTER: Final = "cluster"  # of a route: where the bytes of its tunnels go in the end
METADATA_LEAVES: Final = "leaves"  # the same, where they go by one tunnel more
METADATA_ASKED: Final = "asked"  # and what these are for, where that is not the name that is asked for
STATE_CLUSTER: Final = "policyd.cluster"  # the same, of a tunnel within an Envoy (filter state)
METADATA_TARGET: Final = "target"  # and what a forward proxy there is asked to CONNECT to
STATE_TCP: Final = "envoy.tcp_proxy.cluster"  # the same, of one that is no tunnel any more: Envoy's own name
STATE_TLS: Final = "policyd.tls"  # where TLS in it goes, where that is elsewhere
METADATA_PEER: Final = "peer"  # what an endpoint is: a signals.Party
STATE_PEER: Final = "policyd.peer"  # who speaks: the same (filter state)

# ---- dynamic metadata of jwt_authn, by which a check tells whose token was verified
METADATA_TOKENS: Final = "envoy.filters.http.jwt_authn"
METADATA_TOKEN_FAILED: Final = "failed"  # noqa: S105 - beside the names of rules, which have a slash

# ---- dynamic metadata of the namespace envoy.filters.http.ext_authz
METADATA_DECISION_ID: Final = "decision_id"
METADATA_DECISION: Final = "decision"
METADATA_POLICY: Final = "policy"
SPAN_TAGS: Final = "policyd"  # a span has what was decided as `policyd.decision` and so on

METADATA_REVISION: Final = "revision"  # of an answer beside the proxy's own decision

# ---- and what the proxy's own filter behind it says of the user, where the proxy decides by itself
METADATA_USER: Final = "policyd.user"
USER_IS: Final = "is"  # somebody, nobody
USER: Final = "user"  # id, issuer, subject, claims

# ---- what the proxy's own filter leaves in dynamic metadata (RBAC), with the name of the rule that matched
AUTHZ_FILTER: Final = "envoy.filters.http.ext_authz"
RBAC_FILTER: Final = "envoy.filters.http.rbac"
RBAC_RESULT: Final = "enforced_engine_result"  # one of the next two
RBAC_ALLOWED: Final = "allowed"
RBAC_DENIED: Final = "denied"
RBAC_RULE: Final = "enforced_effective_policy_id"
STATE_DECISION_ID: Final = "policyd.decision_id"  # filter state
# rules that are no policy's; an id begins with no space
RULE_INCOMPLETE: Final = " incomplete"  # 503: policyd would have no decision
RULE_BAD_PATH: Final = " path"  # 400
RULE_FAILED: Final = " failed"  # 403: a forbid failed
RULE_NOBODY: Final = " none"  # 403: no policy permits it

# ---- how much an agent says of itself, and an Envoy, the most first
AGENT_LEVELS: Final = ("debug", "info", "warning", "error")
ENVOY_LEVELS: Final = ("trace", "debug", "info", "warning", "error", "critical", "off")

# ---- metrics of policyd itself
OTHER: Final = "other"  # a label's value that is none of those that are known
DECISIONS: Final = "policyd_decisions_total"
REVISION_DECISIONS: Final = "policyd_revision_decisions_total"
DECISION_SECONDS: Final = "policyd_decision_seconds"
DECISIONS_SHED: Final = "policyd_decisions_shed_total"
DECISION_CACHE: Final = "policyd_decision_cache_total"
DECISION_CACHE_ENTRIES: Final = "policyd_decision_cache_entries"
DECISION_PROCESSES: Final = "policyd_decision_processes"
DECISION_PROCESS_STARTS: Final = "policyd_decision_process_starts_total"
SHADOW_DECISIONS: Final = "policyd_shadow_decisions_total"
LOCAL_DECISIONS: Final = "policyd_local_decisions_total"
LOCAL_DECISIONS_LOST: Final = "policyd_local_decisions_lost_total"
LOCAL_DECISIONS_COMPARED: Final = "policyd_local_decisions_compared_total"
JOURNAL_RECORDS: Final = "policyd_journal_records_total"
JOURNAL_FAILURES: Final = "policyd_journal_failures_total"
EXPORTED_RECORDS: Final = "policyd_exported_records_total"
EXPORT_FAILURES: Final = "policyd_export_failures_total"
EXPORT_BEHIND_SECONDS: Final = "policyd_export_behind_seconds"
JOURNAL_SEALED: Final = "policyd_journal_sealed_segments_total"
JOURNAL_UNSEALABLE: Final = "policyd_journal_unsealable"
RELOADS: Final = "policyd_reloads_total"
CHANGE_REFUSED: Final = "policyd_change_refused"
XDS_PUSHES: Final = "policyd_xds_pushes_total"
XDS_REJECTIONS: Final = "policyd_xds_rejections_total"
XDS_CONNECTIONS: Final = "policyd_xds_connections"
XDS_CONVERGENCE: Final = "policyd_xds_convergence_seconds"
CERTIFICATES_ISSUED: Final = "policyd_certificates_issued_total"
CERTIFICATES_REFUSED: Final = "policyd_certificates_refused_total"
CA_EXPIRY_SECONDS: Final = "policyd_ca_expiry_timestamp_seconds"
CREDENTIAL_EXPIRY: Final = "policyd_credential_expiry_timestamp_seconds"
KEY_FETCHES: Final = "policyd_key_fetches_total"
KEY_SETS_FAILING: Final = "policyd_key_sets_failing"
FEDERATED_FAILING: Final = "policyd_federated_trust_domains_failing"
INSTANCES_UNHEALTHY: Final = "policyd_instances_unhealthy"
SPANS: Final = "policyd_spans_total"
TRACE_WINDOW_BYTES: Final = "policyd_trace_window_bytes"
TRACE_WINDOW_LIMIT: Final = "policyd_trace_window_limit_bytes"
TRACE_WINDOW_TRACES: Final = "policyd_trace_window_traces"

# ---- metrics of an agent
PROXY_UP: Final = "policyd_proxy_up"
PROXY_CONNECTED: Final = "policyd_proxy_connected"
PROXY_RESTARTS: Final = "policyd_proxy_restarts_total"
PROXY_SVID_EXPIRY: Final = "policyd_proxy_svid_expiry_timestamp_seconds"
WORKLOAD_SVID_EXPIRY: Final = "policyd_workload_svid_expiry_timestamp_seconds"
PROXY_SERIES: Final = "policyd_proxy_series"
PROXY_SERIES_DROPPED: Final = "policyd_proxy_series_dropped_total"
PROXY_SERIES_LIMIT: Final = "policyd_proxy_series_limit"
PROXY_MEMORY: Final = "policyd_proxy_memory_ratio"
PROXY_REFUSED: Final = "policyd_proxy_refused_total"
PROXY_UNREADABLE: Final = "policyd_proxy_unreadable_lines"
APPLICATION_UP: Final = "policyd_application_up"

# ---- metrics of the mesh, which Envoys count; their names in full have the prefix and `_` before
MESH_PREFIX: Final = "istio"
MESH_REQUESTS: Final = "requests_total"
MESH_DURATION: Final = "request_duration_milliseconds"
MESH_REQUEST_BYTES: Final = "request_bytes"
MESH_RESPONSE_BYTES: Final = "response_bytes"
MESH_OPENED: Final = "tcp_connections_opened_total"
MESH_CLOSED: Final = "tcp_connections_closed_total"
MESH_RECEIVED: Final = "tcp_received_bytes_total"
MESH_SENT: Final = "tcp_sent_bytes_total"
MESH_REQUEST_MESSAGES: Final = "request_messages_total"
MESH_RESPONSE_MESSAGES: Final = "response_messages_total"

# ---- all of them, by the names that are asked for


class Metric(NamedTuple):
    """Who shows it: policyd itself, an `agent`, or an agent for the Envoys of the `mesh`, all with the same labels."""

    of: Literal["policyd", "agent", "mesh"]
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


METRICS: Final[dict[str, Metric]] = {
    DECISIONS: Metric(
        "policyd", "counter", "Decisions made, those of proxies too once they are on record.", ("decision", "side")
    ),
    REVISION_DECISIONS: Metric(
        "policyd",
        "counter",
        "Decisions made under each of the last revisions that came into force, as records name them.",
        ("decision", "revision"),
    ),
    DECISION_SECONDS: Metric("policyd", "histogram", "Time from the check to its reply, in seconds."),
    DECISIONS_SHED: Metric("policyd", "counter", "Checks refused because no answer could have come in time."),
    DECISION_CACHE: Metric(
        "policyd", "counter", "Decisions found in the cache, not found, and never looked for.", ("result",)
    ),
    DECISION_CACHE_ENTRIES: Metric("policyd", "gauge", "Decisions in the caches now."),
    DECISION_PROCESSES: Metric("policyd", "gauge", "Decision processes that answer under the revision in force."),
    DECISION_PROCESS_STARTS: Metric(
        "policyd", "counter", "Decision processes started, those that followed a lost one too."
    ),
    SHADOW_DECISIONS: Metric(
        "policyd", "counter", "Decisions that shadow policies were asked for too, by what would change.", ("change",)
    ),
    LOCAL_DECISIONS: Metric(
        "policyd",
        "counter",
        "Decisions that proxies made by themselves, as they are put on record: a part of `policyd_decisions_total`.",
        ("decision",),
    ),
    LOCAL_DECISIONS_LOST: Metric("policyd", "counter", "Decisions of proxies that did not come to be on record."),
    LOCAL_DECISIONS_COMPARED: Metric(
        "policyd",
        "counter",
        "Decisions of proxies that policyd made too; one that is `different` is an alarm.",
        ("outcome",),
    ),
    JOURNAL_RECORDS: Metric("policyd", "counter", "Records appended to the journal.", ("kind",)),
    JOURNAL_FAILURES: Metric("policyd", "counter", "Records that could not be kept."),
    EXPORTED_RECORDS: Metric("policyd", "counter", "Records that the collector has taken."),
    EXPORT_FAILURES: Metric(
        "policyd", "counter", "Batches of records that the collector did not take; they are sent again."
    ),
    EXPORT_BEHIND_SECONDS: Metric(
        "policyd", "gauge", "Age of the oldest record that the collector has not taken, in seconds."
    ),
    JOURNAL_SEALED: Metric("policyd", "counter", "Segments of the journal that were sealed."),
    JOURNAL_UNSEALABLE: Metric("policyd", "gauge", "1 while a part of the journal cannot be sealed, else 0."),
    RELOADS: Metric("policyd", "counter", "Changes of the declared files that were looked at.", ("outcome",)),
    CHANGE_REFUSED: Metric("policyd", "gauge", "1 while a change is being refused, else 0."),
    XDS_PUSHES: Metric("policyd", "counter", "Responses sent to proxies.", ("type",)),
    XDS_REJECTIONS: Metric("policyd", "counter", "Responses that a proxy rejected.", ("type",)),
    XDS_CONNECTIONS: Metric("policyd", "gauge", "Proxies connected now."),
    XDS_CONVERGENCE: Metric(
        "policyd", "histogram", "Time from a change until a proxy has confirmed all that it brought, in seconds."
    ),
    CERTIFICATES_ISSUED: Metric("policyd", "counter", "Certificates issued.", ("kind",)),
    CERTIFICATES_REFUSED: Metric("policyd", "counter", "Requests for a certificate that were refused.", ("code",)),
    CA_EXPIRY_SECONDS: Metric(
        "policyd",
        "gauge",
        "When a certificate of the authority's chain expires, in seconds since the epoch.",
        ("which",),
    ),
    CREDENTIAL_EXPIRY: Metric(
        "policyd",
        "gauge",
        "When what a gateway or a sidecar shows from `credentials/` expires, in seconds since the epoch.",
        ("file",),
    ),
    KEY_FETCHES: Metric("policyd", "counter", "Key sets of issuers asked for.", ("outcome",)),
    KEY_SETS_FAILING: Metric("policyd", "gauge", "Key sets of issuers that could not be fetched the last time."),
    FEDERATED_FAILING: Metric(
        "policyd", "gauge", "Other trust domains of which no bundle, or no new one, could be had the last time."
    ),
    INSTANCES_UNHEALTHY: Metric(
        "policyd", "gauge", "Instances that are probed and not reached now, as they do not answer."
    ),
    SPANS: Metric("policyd", "counter", "Spans that proxies told of.", ("outcome",)),
    TRACE_WINDOW_BYTES: Metric("policyd", "gauge", "Memory that the window of traces takes."),
    TRACE_WINDOW_LIMIT: Metric("policyd", "gauge", "And how much it may take; then the oldest traces go."),
    TRACE_WINDOW_TRACES: Metric("policyd", "gauge", "Traces in the window."),
    PROXY_UP: Metric(
        "agent", "gauge", "1 for an Envoy whose metrics are on this page, 0 for one that did not answer.", ("proxy",)
    ),
    PROXY_CONNECTED: Metric("agent", "gauge", "Whether the agent is connected to policyd."),
    PROXY_RESTARTS: Metric("agent", "counter", "How often an Envoy was started again.", ("proxy",)),
    PROXY_SVID_EXPIRY: Metric("agent", "gauge", "When an Envoy's certificate ends, in seconds since 1970.", ("proxy",)),
    WORKLOAD_SVID_EXPIRY: Metric(
        "agent",
        "gauge",
        "When the certificate that processes have by the Workload API ends, in seconds since 1970.",
        ("spiffe_id",),
    ),
    PROXY_SERIES: Metric("agent", "gauge", "Series of the mesh's metrics that an Envoy keeps.", ("proxy",)),
    PROXY_SERIES_DROPPED: Metric(
        "agent", "counter", "How often an Envoy did not count, as it keeps no more series.", ("proxy",)
    ),
    PROXY_SERIES_LIMIT: Metric(
        "agent", "gauge", "How many it keeps of a kind at most; beyond it nothing new is counted."
    ),
    PROXY_MEMORY: Metric(
        "agent",
        "gauge",
        "Share of its memory that an Envoy has taken; from 0.95 on it answers 503, from 1 on it takes no connection.",
        ("proxy",),
    ),
    PROXY_REFUSED: Metric(
        "agent", "counter", "Requests and connections that an Envoy refused for want of memory.", ("proxy",)
    ),
    PROXY_UNREADABLE: Metric(
        "agent", "gauge", "Lines of pages that were no metrics, or somebody else's, and are left out."
    ),
    APPLICATION_UP: Metric(
        "agent",
        "gauge",
        "1 for an application whose metrics are on this page, 0 for one that did not show them in time.",
        ("proxy",),
    ),
    f"{MESH_PREFIX}_{MESH_REQUESTS}": Metric("mesh", "counter", "Requests that have ended."),
    f"{MESH_PREFIX}_{MESH_DURATION}": Metric("mesh", "histogram", "From a request's first byte to its answer's last."),
    f"{MESH_PREFIX}_{MESH_REQUEST_BYTES}": Metric("mesh", "histogram", "Bytes of requests' bodies."),
    f"{MESH_PREFIX}_{MESH_RESPONSE_BYTES}": Metric("mesh", "histogram", "Bytes of answers' bodies."),
    f"{MESH_PREFIX}_{MESH_OPENED}": Metric("mesh", "counter", "Connections of TCP services that were let through."),
    f"{MESH_PREFIX}_{MESH_CLOSED}": Metric(
        "mesh", "counter", "Connections of TCP services that have ended, those that were refused too."
    ),
    f"{MESH_PREFIX}_{MESH_RECEIVED}": Metric("mesh", "counter", "Bytes that callers sent over ended connections."),
    f"{MESH_PREFIX}_{MESH_SENT}": Metric("mesh", "counter", "Bytes that callers got over ended connections."),
    f"{MESH_PREFIX}_{MESH_REQUEST_MESSAGES}": Metric(
        "mesh", "counter", "Messages of gRPC that callers sent. Of the other end only its Service is known."
    ),
    f"{MESH_PREFIX}_{MESH_RESPONSE_MESSAGES}": Metric(
        "mesh", "counter", "Messages of gRPC that callers got. Of the other end only its Service is known."
    ),
}

# ---- log records that are streamed out (OTLP): their scope, and fields of a record -> attributes
EXPORT_SCOPE: Final = "policyd.audit"
EXPORT_ATTRIBUTES: Final[dict[str, str]] = {
    field: f"policyd.{field}"
    for field in (
        "kind", "decision", "status", "decision_id", "principal", "action", "resource", "reasons", "revision",
        "proxy", "request_id", "cached", "duration_us", "decided_by", "writer", "seq",
    )
}  # fmt: skip

# ---- an event by which one of our processes tells another where it listens
CONSOLE_LISTENING: Final = "console.listening"
