"""A listener at which its sidecar may decide: both ways stand in its filters, and its routes say which one is taken.

Law: a route table says who decides, by which revision, and Envoy takes it as a whole, for every request that comes
after: no connection ends, and no request is decided twice or by two revisions. What is decided here is told to the
agent beside the Envoy: every such decision, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from policyd.names import (
    EXTENSION_LISTENER,
    EXTENSION_SAMPLED,
    METADATA_DECISION,
    METADATA_DECISION_ID,
    METADATA_POLICY,
    RBAC_ALLOWED,
    RBAC_FILTER,
    RBAC_RESULT,
    RBAC_RULE,
    RULE_INCOMPLETE,
    STATE_DECISION_ID,
)
from policyd.xds.resources import counting, filters, tls, tokens
from policyd.xds.resources.model import Control, Decided, Switch

SAMPLE: Final = "policyd.sample"
SAMPLE_TIMEOUT: Final = "0.2s"  # a request of the sample waits no longer for policyd, which decides nothing here
FLUSH: Final = "0.2s"  # how long decisions wait to be told together
BUFFER_BYTES: Final = 65_536

_PER_ROUTE: Final = f"{filters.HTTP}.ext_authz.v3.ExtAuthzPerRoute"
_OURS: Final = f"metadata.filter_metadata['{RBAC_FILTER}']"
_THEIRS: Final = f"metadata.filter_metadata['{filters.AUTHZ_FILTER}']"
_IS_OURS: Final = f"'{RBAC_FILTER}' in metadata.filter_metadata"
# who decided has the word, also where policyd was asked besides
DECIDED: Final = Decided(
    f"%CEL({_IS_OURS} ? ({_OURS}.{RBAC_RESULT} == '{RBAC_ALLOWED}' ? 'allow' :"
    f" ({_OURS}.{RBAC_RULE} == '{RULE_INCOMPLETE}' ? 'error' : 'deny')) : {_THEIRS}.{METADATA_DECISION})%",
    f"%CEL({_IS_OURS} ? ({_OURS}.{RBAC_RULE}.startsWith(' ') ? '' : {_OURS}.{RBAC_RULE})"
    f" : {_THEIRS}.{METADATA_POLICY})%",
    f"%CEL({_IS_OURS} ? filter_state['{STATE_DECISION_ID}'] : {_THEIRS}.{METADATA_DECISION_ID})%",
)


def chain(control: Control, switch: Switch, verification: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """What every request passes: its id, the `verification` of its token, policyd, the sample, the route's filter."""
    rbac = {"name": RBAC_FILTER, "typed_config": {"@type": f"{filters.HTTP}.rbac.v3.RBAC"}}
    central = filters.authorization(control, tokens=bool(verification))
    sample = [_sampling(central, switch.sample_percent)] if switch.sample_percent else []
    return [dict(switch.front), *verification, *map(dict, switch.behind), central, *sample, rbac]


def _sampling(central: dict[str, Any], percent: float) -> dict[str, Any]:
    """Has policyd decide about a share, too, which changes nothing (ext_authz.v3.ExtAuthz)."""
    share = {"numerator": round(percent * 10_000), "denominator": "MILLION"}
    changes = {
        "grpc_service": {
            "envoy_grpc": filters.ASKED,
            "timeout": SAMPLE_TIMEOUT,
        },
        "stat_prefix": "policyd_sample",
        "shadow_mode": True,
        "filter_enabled": {"default_value": share},
    }
    return {"name": SAMPLE, "typed_config": central["typed_config"] | changes}


def table(listener: str, cluster: str, switch: Switch) -> dict[str, Any]:
    """The routes of a listener, under its own name: who decides stands on them (route.v3.RouteConfiguration).

    Where tokens are taken, the second is policyd's: of each request until it is known whose it is, and if it never is.
    """
    to = {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}
    routes = [{**to, **_asked(listener, switch)}]
    if switch.rbac is not None:
        here = {**to, **_decided_here(listener, switch)}
        told = [dict(one) for one in switch.told]
        routes = [{**here, "match": {**here["match"], "dynamic_metadata": told}}, *routes] if told else [here]
    hosts = [{"name": "inbound", "domains": ["*"], "routes": routes}]
    return {"name": listener, "virtual_hosts": hosts, **counting.TELLS_NOBODY}


def _decided_here(listener: str, switch: Switch) -> dict[str, Any]:
    rbac = {name: value for name, value in (switch.rbac or {}).items() if name != "@type"}
    extensions = {EXTENSION_LISTENER: listener, EXTENSION_SAMPLED: "1"}
    said: dict[str, Any] = {
        **filters.unasked(),
        **switch.asked,
        RBAC_FILTER: {"@type": f"{filters.HTTP}.rbac.v3.RBACPerRoute", "rbac": rbac},
    }
    if switch.sample_percent:
        said[SAMPLE] = {"@type": _PER_ROUTE, "check_settings": {"context_extensions": extensions}}
    return {"name": switch.revision, "typed_per_filter_config": said}


def _asked(listener: str, switch: Switch) -> dict[str, Any]:
    unsampled = {SAMPLE: {"@type": _PER_ROUTE, "disabled": True}}
    return {"typed_per_filter_config": {**filters.asked_for(listener), **switch.asked, **unsampled}}


def told(listener: str, switch: Switch) -> dict[str, Any]:
    """The log of what was decided here, to the agent, under the listener's name (grpc.v3.HttpGrpcAccessLogConfig)."""
    matcher = {"filter": RBAC_FILTER, "path": [{"key": RBAC_RESULT}], "value": {"present_match": True}}
    decided = {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}
    common = {
        "log_name": listener,
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": tls.SDS_CLUSTER}},
        "buffer_flush_interval": FLUSH,
        "buffer_size_bytes": BUFFER_BYTES,
        "filter_state_objects_to_log": [STATE_DECISION_ID],
    }
    config = {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        "common_config": common,
        "additional_request_headers_to_log": [":method", *switch.headers],
    }
    return {
        "name": "envoy.access_loggers.http_grpc",
        "filter": {"and_filter": {"filters": [counting.ENDED, decided]}},
        "typed_config": config,
    }


def replies(switch: Switch, verification: list[dict[str, Any]]) -> dict[str, Any]:
    """What who is refused here is told, as policyd would (HttpConnectionManager), and who has a bad token."""
    others = tokens.replies(verification).get("local_reply_config", {}).get("mappers", [])
    return {"local_reply_config": {"mappers": [*map(dict, switch.mappers), *others]}}
