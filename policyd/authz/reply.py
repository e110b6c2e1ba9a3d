"""What Envoy is told: a CheckResponse (envoy.service.auth.v3) as bytes.

Law: forbidden is 403, broken is 503, a path without meaning is 400, a token without one 401: nobody confuses
them. The caller learns the decision's id and nothing of the policies; Envoy's access log learns the policy too,
by dynamic metadata.

A reply differs from another of its kind in the decision id only, which always has the same length; so each
kind is serialised once and the id put into a copy of its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from policyd import envoy_api
from policyd.names import (
    DECISION_ID_HEADER,
    METADATA_DECISION,
    METADATA_DECISION_ID,
    METADATA_POLICY,
    METADATA_REVISION,
)

ID_LENGTH: Final = 32

_RESPONSE: Final = "envoy.service.auth.v3.CheckResponse"
_PLACEHOLDER: Final = "\x7f" * ID_LENGTH  # in no policy's id: those are printable
_KEPT: Final = 4096

Word = Literal["allow", "deny", "error"]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """How a request is refused: `field` of CheckResponse, HTTP status, gRPC code and the body for the caller."""

    field: Literal["denied_response", "error_response"]
    status: Literal["Forbidden", "BadRequest", "Unauthorized", "ServiceUnavailable"]
    code: int  # google.rpc.Code; anything but OK is a refusal
    body: str


_FORBIDDEN: Final = _Refusal("denied_response", "Forbidden", 7, "access denied\n")
_BAD_PATH: Final = _Refusal("denied_response", "BadRequest", 3, "the path of the request is not acceptable\n")
_BAD_TOKEN: Final = _Refusal("denied_response", "Unauthorized", 16, "the token of the request is not acceptable\n")
_BROKEN: Final = _Refusal("error_response", "ServiceUnavailable", 14, "authorization is not available\n")
BODIES: Final = {403: _FORBIDDEN.body, 400: _BAD_PATH.body, 401: _BAD_TOKEN.body, 503: _BROKEN.body}  # by status


def allow(decision_id: str, policy: str) -> bytes:
    """The request may pass; `policy` is the first determining one."""
    return _fill(_template("allow", policy, None), decision_id)


def deny(decision_id: str, policy: str) -> bytes:
    """The policies do not let it pass: 403; `policy` is the first determining forbid, "" where nothing
    permitted.
    """
    return _fill(_template("deny", policy, _FORBIDDEN), decision_id)


def refuse_path(decision_id: str) -> bytes:
    """The path has no canonical form: 400."""
    return _fill(_template("deny", "", _BAD_PATH), decision_id)


def refuse_token(decision_id: str) -> bytes:
    """The token proves no user, or there is more than one: 401."""
    return _fill(_template("deny", "", _BAD_TOKEN), decision_id)


def fail(decision_id: str) -> bytes:
    """There is no decision: 503, by error_response, so that Envoy counts an error and no denial."""
    return _fill(_template("error", "", _BROKEN), decision_id)


def beside(word: Word, policy: str, revision: str) -> bytes:
    """What would be decided of a request that the proxy decides: it may pass as far as we are concerned."""
    return _beside(word, policy, revision)


@lru_cache(maxsize=_KEPT)
def _beside(word: Word, policy: str, revision: str) -> bytes:
    said = {METADATA_DECISION: word, METADATA_POLICY: policy, METADATA_REVISION: revision}
    return envoy_api.pack(_RESPONSE, {"status": {"code": 0}, "ok_response": {}, "dynamic_metadata": said})


def _fill(template: bytes, decision_id: str) -> bytes:
    if len(decision_id) != ID_LENGTH or not decision_id.isascii():
        raise ValueError(f"a decision id has {ID_LENGTH} ASCII characters")
    return template.replace(_PLACEHOLDER.encode(), decision_id.encode())


@lru_cache(maxsize=_KEPT)
def _template(word: Word, policy: str, refusal: _Refusal | None) -> bytes:
    response: dict[str, Any] = {
        "status": {"code": refusal.code if refusal else 0},
        "dynamic_metadata": {
            METADATA_DECISION_ID: _PLACEHOLDER,
            METADATA_DECISION: word,
            METADATA_POLICY: policy,
        },
    }
    if refusal is None:
        response["ok_response"] = {}
    else:
        response[refusal.field] = {
            "status": {"code": refusal.status},
            "headers": [{"header": {"key": DECISION_ID_HEADER, "value": _PLACEHOLDER}}],
            "body": refusal.body,
        }
    return envoy_api.pack(_RESPONSE, response)
