"""The form of proxies' access logs: Istio's own by default, or one that an operator writes in Envoy's words.

Law: what Envoy would refuse is refused here, and no form shows a credential.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

MAX_FORMAT: Final = 4096
# headers that nothing shows of a request, each with what it is
HIDDEN_HEADERS: Final = {
    **dict.fromkeys(("authorization", "proxy-authorization", "cookie", "set-cookie"), "a credential"),
    "x-policyd-peer": "what proxies tell each other",
}

TEXT: Final = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% '
    '%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
JSON: Final = {
    "start_time": "%START_TIME%",
    "route_name": "%ROUTE_NAME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}

# Envoy's operators (configuration/observability/access_log/usage): those without an argument, and with one
PLAIN: Final = frozenset({
    "BYTES_RECEIVED", "BYTES_SENT", "CONNECTION_ID", "CONNECTION_TERMINATION_DETAILS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_LOCAL_PORT", "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT_V_END", "DOWNSTREAM_PEER_CERT_V_START", "DOWNSTREAM_PEER_SERIAL", "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN", "DOWNSTREAM_REMOTE_ADDRESS", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT", "DOWNSTREAM_TLS_CIPHER", "DOWNSTREAM_TLS_VERSION", "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED", "DOWNSTREAM_WIRE_BYTES_SENT", "DURATION", "GRPC_STATUS_NUMBER", "HOSTNAME",
    "PROTOCOL", "REQUESTED_SERVER_NAME", "REQUEST_DURATION", "REQUEST_HEADERS_BYTES", "REQUEST_TX_DURATION",
    "RESPONSE_CODE", "RESPONSE_CODE_DETAILS", "RESPONSE_DURATION", "RESPONSE_FLAGS", "RESPONSE_FLAGS_LONG",
    "RESPONSE_HEADERS_BYTES", "RESPONSE_TX_DURATION", "ROUTE_NAME", "START_TIME", "STREAM_ID", "TRACE_ID", "UNIQUE_ID",
    "UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW", "UPSTREAM_HOST", "UPSTREAM_LOCAL_ADDRESS", "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PROTOCOL", "UPSTREAM_REMOTE_ADDRESS", "UPSTREAM_REQUEST_ATTEMPT_COUNT", "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_VERSION", "UPSTREAM_TRANSPORT_FAILURE_REASON", "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT", "VIRTUAL_CLUSTER_NAME",
})  # fmt: skip
HEADERS: Final = frozenset({"REQ", "RESP", "TRAILER"})
WITH_ARGUMENT: Final = HEADERS | {"DYNAMIC_METADATA", "START_TIME", "GRPC_STATUS", "PATH"}
_OPERATOR: Final = re.compile(r"%(?:%|([A-Z_]+)(?:\(([^()%\n]{0,200})\))?(?::([0-9]{1,4}))?%)")


def check_format(text: str) -> str:
    """Return a form that Envoy takes and that shows no credential; raises ValueError."""
    if len(text) > MAX_FORMAT:
        raise ValueError(f"a format has at most {MAX_FORMAT} characters, this one {len(text)}")
    for operator, argument in _operators(text):
        known = WITH_ARGUMENT if argument is not None else PLAIN
        if operator not in known:
            raise ValueError(f"`%{operator}%` is no operator of Envoy's access logs{_argument(operator)}")
        if operator in HEADERS and (named := _hidden(argument or "")):
            raise ValueError(f"`{named}` is {HIDDEN_HEADERS[named.lower()]}, which no log shows")
    return text


def check_json(text: str) -> str:
    """As `check_format`, of a JSON object whose values are forms."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not value or not all(isinstance(each, str) for each in value.values()):
        raise ValueError("with the encoding JSON a format is a JSON object of names and forms")
    for each in value.values():
        check_format(each)
    return text


def _operators(text: str) -> Iterator[tuple[str, str | None]]:
    at = 0
    while (start := text.find("%", at)) >= 0:
        found = _OPERATOR.match(text, start)
        if found is None:
            raise ValueError(f"`{text[start : start + 40]}` begins no operator; write `%%` for a percent sign")
        if found[1]:
            yield found[1], found[2]
        at = found.end()


def _argument(operator: str) -> str:
    if operator in WITH_ARGUMENT - PLAIN:
        return " without an argument, as in `%REQ(:PATH)%`"
    return " with an argument" if operator in PLAIN else ""


def _hidden(argument: str) -> str:
    """The header among those that an argument names (`X?Y`) that nothing shows."""
    return next((name for name in re.split(r"[?:]", argument) if name.lower() in HIDDEN_HEADERS), "")
