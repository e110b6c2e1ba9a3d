"""A listener at which its sidecar may decide: both ways stand in its filters, and its routes say which one is taken.

Law: a route table says who decides, by which revision, and Envoy takes it as a whole, for every request that comes
after: no connection ends, and no request is decided twice or by two revisions. What is decided here is told to the
agent beside the Envoy: every such decision once, and nothing else; a connection as soon as there is one.

A filter that is made for a request and then finds that its route has no use for it costs up to 30,000 instructions, an
eighth of a refusal; so what a route has no use for is not made, where no other route of the table was looked at before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from policyd import decision_line
from policyd.names import (
    AUTHZ_FILTER,
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
from policyd.xds.resources import counting, filters, tokens
from policyd.xds.resources.model import Control, Decided, Switch

SAMPLE: Final = "policyd.sample"
SAMPLE_TIMEOUT: Final = "0.2s"  # a request of the sample waits no longer for policyd, which decides nothing here

_PER_ROUTE: Final = f"{filters.HTTP}.ext_authz.v3.ExtAuthzPerRoute"
_UNRULED: Final = {"@type": f"{filters.HTTP}.rbac.v3.RBACPerRoute"}
_NOT_MADE: Final = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
_OURS: Final = f"metadata.filter_metadata['{RBAC_FILTER}']"
_THEIRS: Final = f"metadata.filter_metadata['{AUTHZ_FILTER}']"
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
    sample = [_sampling(central)] if switch.sample_percent else []
    return [dict(switch.front), *verification, *map(dict, switch.behind), central, *sample, rbac]


def _sampling(central: dict[str, Any]) -> dict[str, Any]:
    """Has policyd decide, too, which changes nothing (ext_authz.v3.ExtAuthz): of requests whose route asks for it."""
    changes = {
        "grpc_service": {
            "envoy_grpc": filters.ASKED,
            "timeout": SAMPLE_TIMEOUT,
        },
        "stat_prefix": "policyd_sample",
        "shadow_mode": True,
    }
    return {"name": SAMPLE, "typed_config": central["typed_config"] | changes}


def table(listener: str, led: Callable[[dict[str, Any]], dict[str, Any]], switch: Switch) -> dict[str, Any]:
    """The routes of a listener, under its own name: who decides stands on them (route.v3.RouteConfiguration).

    `led` makes the route to the application, with what its filters are told. Where the proxy decides, the first is that
    of the sample. Where tokens are taken, the last is policyd's: of each request until it is known whose it is, and if
    it never is.
    """
    routes: list[dict[str, Any]] = []
    if switch.rbac is not None:
        told = {"dynamic_metadata": [dict(one) for one in switch.told]} if switch.told else {}
        told |= {"headers": [dict(one) for one in switch.only]} if switch.only else {}
        sample = {"runtime_fraction": {"default_value": _share(switch.sample_percent)}}
        for share in (sample, {}) if switch.sample_percent else ({},):
            route = led(_decided_here(listener, switch, sampled=bool(share)))
            routes.append({**route, "name": switch.revision, "match": {**route["match"], **told, **share}})
    if switch.rbac is None or switch.told or switch.only:
        routes.append(led(_asked(listener, switch)))
    host = {"name": "inbound", "domains": ["*"], "routes": routes, **_rules(switch)}
    return {"name": listener, "virtual_hosts": [host], **counting.TELLS_NOBODY}


def _share(percent: float) -> dict[str, Any]:
    """Of requests (FractionalPercent): Envoy draws a number for each, in which a caller has no part."""
    return {"numerator": round(percent * 10_000), "denominator": "MILLION"}


def _rules(switch: Switch) -> dict[str, Any]:
    """The filter's, once for all routes that do not say otherwise."""
    if switch.rbac is None:
        return {}
    rbac = {name: value for name, value in switch.rbac.items() if name != "@type"}
    return {"typed_per_filter_config": {RBAC_FILTER: {**_UNRULED, "rbac": rbac}}}


def _decided_here(listener: str, switch: Switch, *, sampled: bool) -> dict[str, Any]:
    extensions = {EXTENSION_LISTENER: listener, EXTENSION_SAMPLED: "1"}
    said = {**_unasked(switch, AUTHZ_FILTER), **switch.asked}
    if sampled:
        said[SAMPLE] = {"@type": _PER_ROUTE, "check_settings": {"context_extensions": extensions}}
    elif switch.sample_percent:
        said |= _unasked(switch, SAMPLE)
    return said


def _asked(listener: str, switch: Switch) -> dict[str, Any]:
    sample = [SAMPLE] if switch.sample_percent else []
    said = {**filters.asked_for(listener), **switch.asked}
    if switch.told:  # it may turn out not to be the request's route, whose filters are made by then
        said |= {**_unasked(switch, *sample), RBAC_FILTER: dict(_UNRULED)}
    else:
        unused = [switch.front["name"], *(one["name"] for one in switch.behind), *sample, RBAC_FILTER]
        said |= {name: dict(_NOT_MADE) for name in unused}
    return said


def _unasked(switch: Switch, *names: str) -> dict[str, Any]:
    """Filters by which policyd is not asked; they are there where another route of the table was first."""
    return {name: {"@type": _PER_ROUTE, "disabled": True} if switch.told else dict(_NOT_MADE) for name in names}


def told(listener: str, switch: Switch, peer: str, *, connections: bool = False) -> dict[str, Any]:
    """The line of each decision that was made here, to the agent (access_loggers.file.v3.FileAccessLog).

    `peer` is who asks, as decision_line has it. Where these are `connections`, each that comes about is told then, and
    what ends without having done so at its end.
    """
    matcher = {"filter": RBAC_FILTER, "path": [{"key": RBAC_RESULT}], "value": {"present_match": True}}
    decided = {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}
    line = {"inline_string": decision_line.form(listener, switch.headers, peer)}
    config = {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": decision_line.PIPE,  # an Envoy is in the folder in which its agent reads it
        "log_format": {"text_format_source": line, "omit_empty_values": True},
    }
    return {
        "name": "envoy.access_loggers.file",
        "filter": {"and_filter": {"filters": [counting.SETTLED if connections else counting.ENDED, decided]}},
        "typed_config": config,
    }


def replies(switch: Switch, verification: list[dict[str, Any]]) -> dict[str, Any]:
    """What who is refused here is told, as policyd would (HttpConnectionManager), and who has a bad token."""
    others = tokens.replies(verification).get("local_reply_config", {}).get("mappers", [])
    return {"local_reply_config": {"mappers": [*map(dict, switch.mappers), *others]}}
