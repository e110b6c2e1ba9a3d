"""What the compiled filter's denials are to callers: policyd's own words and statuses, and a decision's id.

Law: the id is made in the proxy, once for each request (`%UNIQUE_ID%` is another one each time that it is asked for),
and kept where no header reaches, so that a caller has no part in it. It is a UUID, as Envoy makes them.
"""

from __future__ import annotations

from typing import Any, Final

from policyd.authz.reply import BODIES
from policyd.local.envoy import BAD_PATH, INCOMPLETE
from policyd.names import DECISION_ID_HEADER, STATE_DECISION_ID

DECISION_ID: Final = STATE_DECISION_ID

_TYPE: Final = "type.googleapis.com/"
_DETAILS: Final = "rbac_access_denied_matched_policy["  # what Envoy says of a denial, with the name of the rule
_MOST: Final = r"^rbac_access_denied_matched_policy.([^_]|_none)"  # policies, but for odd ids, and that there is none
_BY_POLICYD: Final = "UAEX"  # the response flag


def identified() -> dict[str, Any]:
    """The filter in front, which gives each request its decision's id (set_filter_state.v3)."""
    unique = {"text_format_source": {"inline_string": "%UNIQUE_ID%"}}
    value = {"object_key": DECISION_ID, "factory_key": "envoy.string", "format_string": unique}
    config = {
        "@type": f"{_TYPE}envoy.extensions.filters.http.set_filter_state.v3.Config",
        "on_request_headers": [value],
    }
    return {"name": "envoy.filters.http.set_filter_state", "typed_config": config}


def mappers() -> list[dict[str, Any]]:
    """Of the connection manager's local_reply_config; what other filters refuse is left as it is.

    The first that fits is taken, and each expression that is looked at costs a refusal 6,000 instructions: so what
    policyd refused is passed over first, and then come the refusals that there are most of.
    """
    own = {INCOMPLETE: 503, BAD_PATH: 400}
    return [
        {"filter": {"response_flag_filter": {"flags": [_BY_POLICYD]}}},
        _mapper(f".matches('{_MOST}')", 403),
        *(_mapper(f" == '{_DETAILS}{name.replace(' ', '_')}]'", status) for name, status in own.items()),
        _mapper(f".startsWith('{_DETAILS}')", 403),
    ]


def _mapper(details: str, status: int) -> dict[str, Any]:
    expression = {
        "@type": f"{_TYPE}envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
        "expression": f"response.code_details{details}",
    }
    header = {"key": DECISION_ID_HEADER, "value": f"%FILTER_STATE({DECISION_ID}:PLAIN)%"}
    return {
        "filter": {
            "extension_filter": {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": expression}
        },
        "status_code": status,
        "body_format_override": {"text_format_source": {"inline_string": BODIES[status]}},
        "headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }
