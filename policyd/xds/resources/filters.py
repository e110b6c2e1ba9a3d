"""The HTTP connection manager and its filters, as every listener of ours has them.

Law: one path. The sidecar normalises before anything looks at the path, so that policy and application see the same.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final

from policyd.mesh.model import Instance
from policyd.names import (
    AUTHZ_FILTER,
    EXTENSION_HOST,
    EXTENSION_LISTENER,
    EXTENSION_PORT,
    EXTENSION_TLS,
    METADATA_LISTENER,
    METADATA_NAMESPACE,
    METADATA_TOKENS,
)
from policyd.signals import PEER_HEADER
from policyd.xds.resources.model import AUTHZ_CLUSTER, Control, seconds

HTTP = "type.googleapis.com/envoy.extensions.filters.http"
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
AUTHZ_RETRIES = 9  # with their pauses some 0.6 s: until a process that was lost is there again
WITHHELD_HEADERS = ("authorization", "cookie", "proxy-authorization", PEER_HEADER)  # never sent to policyd

GRPC_WEB: Final = {"name": "envoy.filters.http.grpc_web", "typed_config": {"@type": f"{HTTP}.grpc_web.v3.GrpcWeb"}}
# counts messages by the cluster that they go to, for those that are of gRPC
GRPC_STATS: Final = {
    "name": "envoy.filters.http.grpc_stats",
    "typed_config": {"@type": f"{HTTP}.grpc_stats.v3.FilterConfig", "stats_for_all_methods": False},
}
# the way of each question: what Envoy else adds to one (x-forwarded-for, x-envoy-internal) nobody reads, and to read it
# takes a decider a tenth of its time
ASKED: Final = {"cluster_name": AUTHZ_CLUSTER, "authority": "policyd", "skip_envoy_headers": True}
ROUTER: Final = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{HTTP}.router.v3.Router"}}


def authorization(control: Control, *, tokens: bool = False) -> dict[str, Any]:
    """The external-authorization filter: broken is 503, never 403 and never a pass (ext_authz.v3.ExtAuthz).

    With `tokens` a check brings what the filter in front has verified.
    """
    retry = {
        "retry_on": "unavailable,cancelled,internal,connect-failure,reset",
        "num_retries": AUTHZ_RETRIES,
        # the default base costs up to half a second a request while policyd is away; Envoy also takes max_interval
        # as the time-out of each attempt (convertCoreToRouteRetryPolicy), so it leaves room for a second one; attempts
        # that find a process gone take no time
        "retry_back_off": {"base_interval": "0.005s", "max_interval": seconds(control.authz_timeout_seconds / 2)},
    }
    config = {
        "@type": f"{HTTP}.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {
            "envoy_grpc": ASKED,
            "timeout": seconds(control.authz_timeout_seconds),
            "retry_policy": retry,
        },
        "failure_mode_allow": False,
        "status_on_error": {"code": "ServiceUnavailable"},
        "stat_prefix": "policyd",
        "metadata_context_namespaces": [METADATA_NAMESPACE, *([METADATA_TOKENS] if tokens else [])],
        "disallowed_headers": {"patterns": [{"exact": name} for name in WITHHELD_HEADERS]},
    }
    return {"name": AUTHZ_FILTER, "typed_config": config}


def decision(control: Control, verification: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What every request passes where it is decided: `verification` of its token, if any, then the question."""
    return [*verification, authorization(control, tokens=bool(verification))]


def asked_for(listener: str) -> dict[str, Any]:
    """What a route carries so that the check says which listener it is asked for (typed_per_filter_config)."""
    return _per_route({"check_settings": {"context_extensions": {EXTENSION_LISTENER: listener}}})


def asked_for_host(host: str, port: int, listener: str = "", *, guarded: str = "") -> dict[str, Any]:
    """What a route to the outside carries: the Host (or pattern) and port that it leads to, whatever headers say.

    Through one that is `guarded` only clients of TLS get that ask for that name (`*`: what was asked for). At a gateway
    `listener` says who is asked for.
    """
    extensions = {
        EXTENSION_HOST: host,
        EXTENSION_PORT: str(port),
        **({EXTENSION_LISTENER: listener} if listener else {}),
        **({EXTENSION_TLS: guarded} if guarded else {}),
    }
    return _per_route({"check_settings": {"context_extensions": extensions}})


def unasked() -> dict[str, Any]:
    """What a route carries whose requests are decided at its other end, or lead nowhere."""
    return _per_route({"disabled": True})


def _per_route(fields: dict[str, Any]) -> dict[str, Any]:
    return {AUTHZ_FILTER: {"@type": f"{HTTP}.ext_authz.v3.ExtAuthzPerRoute", **fields}}


def asks_as(listener: str) -> dict[str, Any]:
    """Names the listener for the checks of its requests, where the routes are shared with others (set_metadata.v3)."""
    value = {"metadata_namespace": METADATA_NAMESPACE, "value": {METADATA_LISTENER: listener}}
    config = {"@type": f"{HTTP}.set_metadata.v3.Config", "metadata": [value]}
    return {"name": "envoy.filters.http.set_metadata", "typed_config": config}


def proxy_password(instance: Instance) -> dict[str, Any]:
    """Only who knows the instance's secret may use its identity (basic_auth.v3.BasicAuth, SHA of a random secret)."""
    digest = base64.b64encode(hashlib.sha1(instance.proxy_secret.encode(), usedforsecurity=False).digest()).decode()
    config = {
        "@type": f"{HTTP}.basic_auth.v3.BasicAuth",
        "users": {"inline_string": f"{instance.name}:{{SHA}}{digest}\n"},
        "authentication_header": "proxy-authorization",
    }
    return {"name": "envoy.filters.http.basic_auth", "typed_config": config}


def manager(prefix: str, filters: list[dict[str, Any]], routes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The network filter; `routes` is `route_config` or `rds`, `more` other fields of HttpConnectionManager."""
    config = {
        "@type": MANAGER,
        "stat_prefix": prefix,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": {"idle_timeout": "3600s", "max_headers_count": 100},
        "max_request_headers_kb": 60,
        "use_remote_address": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http2_protocol_options": {"allow_connect": True},  # upgrades by HTTP/2 (RFC 8441)
        "http_filters": [*filters, ROUTER],
        **routes,
        **more,
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def rds(name: str) -> dict[str, Any]:
    """Routes by name, from the stream that the listener came on."""
    return {"rds": {"route_config_name": name, "config_source": {"resource_api_version": "V3", "ads": {}}}}
