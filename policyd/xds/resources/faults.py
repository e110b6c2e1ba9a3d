"""Faults and CORS of a rule, as what the filters of the callers' Envoys read on a route.

Law: both filters stand behind the decision at a gateway, so that neither answers what policy has not allowed.
"""

from __future__ import annotations

from typing import Any, Final

from policyd.mesh.istio.destination import Percent
from policyd.mesh.istio.faults import GRPC_STATUSES, Abort, CorsPolicy, Delay, Fault
from policyd.xds.resources.matches import string_match
from policyd.xds.resources.model import seconds

HTTP: Final = "type.googleapis.com/envoy.extensions.filters.http"
FAULT_FILTER: Final = "envoy.filters.http.fault"
CORS_FILTER: Final = "envoy.filters.http.cors"

# what a listener's chain holds so that its routes can say more
FILTERS: Final[tuple[dict[str, Any], ...]] = (
    {"name": FAULT_FILTER, "typed_config": {"@type": f"{HTTP}.fault.v3.HTTPFault"}},
    {"name": CORS_FILTER, "typed_config": {"@type": f"{HTTP}.cors.v3.Cors"}},
)


def of_route(fault: Fault | None, cors: CorsPolicy | None) -> dict[str, Any]:
    """What a route says to both filters (typed_per_filter_config)."""
    found: dict[str, Any] = {}
    if fault is not None:
        found[FAULT_FILTER] = _fault(fault)
    if cors is not None:
        found[CORS_FILTER] = _cors(cors)
    return found


def share(percentage: Percent | None, otherwise: float) -> dict[str, Any]:
    """A percentage as Envoy's FractionalPercent; `otherwise` where none is given."""
    value = otherwise if percentage is None else percentage.value
    return {"numerator": round(value * 10_000), "denominator": "MILLION"}


def _fault(fault: Fault) -> dict[str, Any]:
    found: dict[str, Any] = {"@type": f"{HTTP}.fault.v3.HTTPFault"}
    if fault.delay is not None:
        found["delay"] = {"fixed_delay": seconds(fault.delay.fixed_delay), "percentage": _delayed(fault.delay)}
    if fault.abort is not None:
        found["abort"] = {**_status(fault.abort), "percentage": share(fault.abort.percentage, 0.0)}
    return found


def _delayed(delay: Delay) -> dict[str, Any]:
    return share(delay.percentage, float(delay.percent or 0))


def _status(abort: Abort) -> dict[str, Any]:
    if abort.grpc_status is not None:
        return {"grpc_status": GRPC_STATUSES.index(abort.grpc_status)}
    return {"http_status": abort.http_status}


def _cors(policy: CorsPolicy) -> dict[str, Any]:
    found: dict[str, Any] = {
        "@type": f"{HTTP}.cors.v3.CorsPolicy",
        "allow_origin_string_match": [string_match(origin) for origin in policy.origins],
        "filter_enabled": {"default_value": {"numerator": 100}},
        "allow_credentials": policy.allow_credentials,
        "forward_not_matching_preflights": policy.unmatched_preflights != "IGNORE",
    }
    lists = {
        "allow_methods": policy.allow_methods,
        "allow_headers": policy.allow_headers,
        "expose_headers": policy.expose_headers,
    }
    found |= {name: ",".join(values) for name, values in lists.items() if values}
    if policy.max_age is not None:
        found["max_age"] = str(round(policy.max_age))
    return found
