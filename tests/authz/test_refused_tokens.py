"""Tokens that Envoy refused before it asked: what its log says becomes an entry, or nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from policyd import envoy_api
from policyd.audit.record import Entry, Fault
from policyd.authz.refused_tokens import entries, entry, listener_of
from policyd.errors import IncompleteRequest
from policyd.mesh.model import Mesh
from tests.authz.checks import PAGE, REVIEWS, changed

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ID = "4b4613d7-14ea-4b04-b833-9cd0c0bb8add"


def believing(mesh: Mesh) -> Mesh:
    """The mesh, whose reviews-v1 takes tokens."""
    listener = replace(mesh.listeners["reviews-v1/inbound"], issuers={"https://login.example.com": frozenset()})
    return replace(mesh, listeners={**mesh.listeners, listener.name: listener})


def socket(ip: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": ip, "port_value": port}}


def log(**changes: Any) -> Any:
    """What Envoy logs of a refused token; `changes` by path, None takes a part out."""
    fields: dict[str, Any] = {
        "common_properties": {
            "downstream_remote_address": socket("10.0.0.1", 41000),
            "downstream_local_address": socket("10.0.0.2", 15006),
            "tls_properties": {"peer_certificate_properties": {"subject_alt_name": [{"uri": str(PAGE)}]}},
        },
        "request": {
            "authority": "Reviews:9080",
            "path": "/reviews/0?access_token=secret",
            "request_id": "r-1",
            "request_headers": {
                ":method": "PUT",
                "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            },
        },
        "response": {
            "response_code_details": "jwt_authn_access_denied{Jwt_is_expired}",
            "response_headers": {"x-policyd-decision-id": ID},
        },
    }
    return envoy_api.build("envoy.data.accesslog.v3.HTTPAccessLogEntry", changed(fields, changes))


def read(mesh: Mesh, logged: Any) -> Entry:
    mesh = believing(mesh)
    return entry(logged, listener_of("reviews-v1/inbound", REVIEWS, mesh), mesh, "abc", NOW)


def test_the_entry_is_that_of_a_request_with_no_token_that_holds(mesh: Mesh) -> None:
    assert read(mesh, log()) == Entry(
        time=NOW,
        kind="decision",
        decision="deny",
        status=401,
        decision_id=ID,
        principal=f'Workload::"{PAGE}"',
        resource='Service::"reviews.default"',
        errors=(Fault("unacceptable_token", "Envoy refused the token: Jwt is expired"),),
        context={"request": {"method": "PUT", "host": "reviews", "path": "/reviews/0"}},
        revision="abc",
        proxy="reviews-v1",
        request_id="r-1",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
    )


@pytest.mark.parametrize(
    "changes",
    [
        # what says nothing of a refused token
        {"response__response_code_details": "via_upstream"},
        {"response__response_code_details": "jwt_authn_access_denied{}"},
        {"response__response_code_details": "jwt_authn_access_denied{a\nb}"},
        {"response__response_code_details": "jwt_authn_access_denied{" + "a" * 5000 + "}"},
        # ids that no Envoy made: none, a decision's own, a caller's
        {"response__response_headers": {}},
        {"response__response_headers": {"x-policyd-decision-id": "0123456789abcdef0123456789abcdef"}},
        {"response__response_headers": {"x-policyd-decision-id": f"{ID}, {ID}"}},
        {"response__response_headers": {"x-policyd-decision-id": ID.upper()}},
        # what no check would have either
        {"request__request_headers": {}},
        {"request__request_headers": {":method": "a b"}},
        {"request__request_headers": {":method": "A" * 65}},
        {"request__authority": ""},
        {"request__authority": "a" * 300},
        {"common_properties__downstream_remote_address": None},
        {"common_properties__downstream_local_address": {"pipe": {"path": "/x"}}},
        {"common_properties__tls_properties": None},
        {"common_properties__tls_properties": {"peer_certificate_properties": {"subject_alt_name": [{"dns": "x"}]}}},
        {"common_properties__tls_properties": {"peer_certificate_properties": {"subject_alt_name": [
            {"uri": "spiffe://elsewhere/ns/default/sa/web"}]}}},
    ],
)  # fmt: skip
def test_what_cannot_be_believed_is_no_entry(mesh: Mesh, changes: dict[str, Any]) -> None:
    with pytest.raises(IncompleteRequest):
        read(mesh, log(**changes))


def test_one_that_cannot_be_believed_hides_no_other(mesh: Mesh) -> None:
    mesh, bad = believing(mesh), log(request__authority="")
    fields = {"http_logs": {"log_entry": [{}, {}]}}
    message = envoy_api.build("envoy.service.accesslog.v3.StreamAccessLogsMessage", fields)
    for place, one in zip(message.http_logs.log_entry, (bad, log()), strict=True):
        place.CopyFrom(one)

    assert [one.decision_id for one in entries(message, mesh.listeners["reviews-v1/inbound"], mesh, "", NOW)] == [ID]


def test_a_path_without_a_form_is_told_without_its_query(mesh: Mesh) -> None:
    path = read(mesh, log(request__path="/a%zz?access_token=secret")).context["request"]["path"]
    assert path == "/a%zz"


@pytest.mark.parametrize(
    ("name", "peer"),
    [("reviews-v1/inbound", PAGE), ("nowhere", REVIEWS), ("", REVIEWS), ("ratings-v1/inbound", REVIEWS)],
)
def test_a_proxy_tells_of_its_own_listeners_only(mesh: Mesh, name: str, peer: Any) -> None:
    with pytest.raises(IncompleteRequest):
        listener_of(name, peer, believing(mesh))


def test_who_believes_nobody_refuses_no_tokens(mesh: Mesh) -> None:
    with pytest.raises(IncompleteRequest):
        listener_of("reviews-v1/inbound", REVIEWS, mesh)
