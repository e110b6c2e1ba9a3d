"""The filter that verifies end users' tokens (jwt_authn), in front of the question to policyd.

Law: a request without a token passes, one with a bad token gets 401 here. What is verified goes to policyd as dynamic
metadata, under the name of its rule; headers that tell a claim are the filter's alone. A refusal is an answer with an
id of its own, and policyd hears of it.
"""

from __future__ import annotations

from typing import Any

from policyd.mesh.istio.request_authentication import JwtRule
from policyd.mesh.jwks import nobodys_keys
from policyd.mesh.model import Instance, Mesh
from policyd.mesh.tokens import rules_of
from policyd.names import DECISION_ID_HEADER, METADATA_TOKEN_FAILED, METADATA_TOKENS
from policyd.xds.agreed import XDS_CLUSTER
from policyd.xds.resources import claims, counting

AUTHENTICATION = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"


def verification(mesh: Mesh, instance: Instance) -> list[dict[str, Any]]:
    """The filter of an instance that believes some issuer, else nothing."""
    rules = rules_of(mesh.request_authentications, instance)
    if not rules:
        return []
    # in front of the question to policyd, which is asked about the route that is taken
    anew = {"clear_route_cache": True} if instance.role == "gateway" and claims.are_matched(mesh) else {}
    config = {
        "@type": AUTHENTICATION,
        "providers": {one.name: _provider(one.name, one.rule, mesh) | anew for one in rules},
        # each token is taken to the provider of its issuer, and there has to be one
        "rules": [{"match": {"prefix": "/"}, "requires": {"allow_missing": {}}}],
    }
    return [{"name": METADATA_TOKENS, "typed_config": config}]


def replies(verification: list[dict[str, Any]]) -> dict[str, Any]:
    """What a listener says besides (HttpConnectionManager): a token for another audience is 401 too, where the filter
    says 403; the 403 of policies stays, since they are not asked about a token that does not hold.
    """
    if not verification:
        return {}
    code = {"double_match": {"range": {"start": 2, "end": 1000}}}  # 1: there is no token (google::jwt_verify::Status)
    matcher = {"filter": METADATA_TOKENS, "path": [{"key": METADATA_TOKEN_FAILED}, {"key": "code"}], "value": code}
    found = {"matcher": matcher, "match_if_key_not_found": False}
    both = {"and_filter": {"filters": [_is(403, "policyd.forbidden"), {"metadata_filter": found}]}}
    # what policyd has refused has an id already
    id_ = {"header": {"key": DECISION_ID_HEADER, "value": "%UNIQUE_ID%"}, "append_action": "ADD_IF_ABSENT"}
    other = {"filter": both, "status_code": 401, "headers_to_add": [id_]}
    return {
        "local_reply_config": {"mappers": [other, {"filter": _is(401, "policyd.refused"), "headers_to_add": [id_]}]}
    }


def _is(status: int, key: str) -> dict[str, Any]:
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": status, "runtime_key": key}}}}


def told(said: dict[str, Any], listener: str, verification: list[dict[str, Any]]) -> dict[str, Any]:
    """What is `said` of a listener's requests, and of tokens that the filter refused to policyd, under its name."""
    if not verification:
        return said
    return {**said, "access_log": [*said["access_log"], _log(listener)]}


def _log(listener: str) -> dict[str, Any]:
    """Requests that the filter refused, told at once (access_loggers.grpc.v3.HttpGrpcAccessLogConfig)."""
    refused = {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
        "expression": "response.code_details.startsWith('jwt_authn_access_denied')",
    }
    common = {
        "log_name": listener,
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": XDS_CLUSTER}},
        "buffer_flush_interval": "0.2s",
    }
    config = {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        "common_config": common,
        "additional_request_headers_to_log": [":method", "traceparent", "x-b3-traceid", "x-b3-spanid"],
        "additional_response_headers_to_log": [DECISION_ID_HEADER],
    }
    cel = {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": refused}
    return {
        "name": "envoy.access_loggers.http_grpc",
        "filter": {"and_filter": {"filters": [counting.ENDED, {"extension_filter": cel}]}},
        "typed_config": config,
    }


def _provider(name: str, rule: JwtRule, mesh: Mesh) -> dict[str, Any]:
    keys = rule.jwks or mesh.key_sets.get(rule.source) or nobodys_keys()
    provider: dict[str, Any] = {
        "issuer": rule.issuer,
        "local_jwks": {"inline_string": keys},
        "forward": rule.forward_original_token,
        "payload_in_metadata": name,
        # of several tokens Envoy lets a good one make up for a bad one; policyd does not
        "failed_status_in_metadata": METADATA_TOKEN_FAILED,
    }
    if rule.audiences:
        provider["audiences"] = list(rule.audiences)
    if rule.from_headers:
        provider["from_headers"] = [{"name": one.name, "value_prefix": one.prefix} for one in rule.from_headers]
    if rule.from_params:
        provider["from_params"] = list(rule.from_params)
    if rule.from_cookies:
        provider["from_cookies"] = list(rule.from_cookies)
    if rule.output_payload_to_header is not None:
        provider["forward_payload_header"] = rule.output_payload_to_header
    if rule.output_claim_to_headers:
        provider["claim_to_headers"] = [
            {"header_name": one.header, "claim_name": one.claim} for one in rule.output_claim_to_headers
        ]
    return provider
