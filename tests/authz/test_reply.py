"""What Envoy is told, as whole messages."""

from __future__ import annotations

from typing import Any

import pytest

from policyd import envoy_api
from policyd.authz import reply

ID = "0123456789abcdef" * 2


def message_of(body: bytes) -> dict[str, Any]:
    return envoy_api.to_dict(envoy_api.message("envoy.service.auth.v3.CheckResponse").FromString(body))


def metadata(decision: str, policy: str = "") -> dict[str, str]:
    return {"decision_id": ID, "decision": decision, "policy": policy}


def refusal(status: str, body: str) -> dict[str, Any]:
    return {
        "status": {"code": status},
        "headers": [{"header": {"key": "x-policyd-decision-id", "value": ID}}],
        "body": body,
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            reply.allow(ID, "page-reviews"),
            {"status": {}, "ok_response": {}, "dynamic_metadata": metadata("allow", "page-reviews")},
        ),
        (
            reply.deny(ID, "freeze"),
            {
                "status": {"code": 7},
                "denied_response": refusal("Forbidden", "access denied\n"),
                "dynamic_metadata": metadata("deny", "freeze"),
            },
        ),
        (
            reply.refuse_path(ID),
            {
                "status": {"code": 3},
                "denied_response": refusal("BadRequest", "the path of the request is not acceptable\n"),
                "dynamic_metadata": metadata("deny"),
            },
        ),
        (
            reply.fail(ID),
            {
                "status": {"code": 14},
                "error_response": refusal("ServiceUnavailable", "authorization is not available\n"),
                "dynamic_metadata": metadata("error"),
            },
        ),
    ],
)
def test_a_reply_is_whole(body: bytes, message: dict[str, Any]) -> None:
    assert message_of(body) == message


def test_each_reply_has_its_own_id() -> None:
    other = "f" * 32
    one, two = reply.deny(ID, "ä"), reply.deny(other, "ä")
    assert one.replace(ID.encode(), other.encode()) == two
    assert message_of(two)["dynamic_metadata"]["decision_id"] == other


@pytest.mark.parametrize("bad", ["", "short", "0" * 33, "é" * 32])
def test_an_id_of_another_length_is_refused(bad: str) -> None:
    with pytest.raises(ValueError):
        reply.allow(bad, "")
