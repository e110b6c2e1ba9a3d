"""RequestAuthentication to jwt_authn: each field where Envoy has it, in front of the question."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from policyd import envoy_api
from policyd.envoy_api import LISTENER
from policyd.mesh.jwks import nobodys_keys, parse_jwks
from policyd.xds.resources.build import build_snapshots
from policyd.xds.resources.tokens import verification
from tests.fakes.issuer import Issuer
from tests.xds.resources.folders import CONTROL, WORKLOADS, mesh_of
from tests.xds.resources.test_build import shown, static

KEYS = Issuer("https://login.example.com", "RSA", "EC", "OKP").jwks
RULES = f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people}}
spec:
  selector: {{matchLabels: {{app: api}}}}
  jwtRules:
    - {{issuer: https://a, jwks: '{KEYS}', EXTRA}}
"""
PROVIDER = {
    "issuer": "https://a",
    "local_jwks": {"inline_string": parse_jwks(KEYS)},
    "forward": False,
    "payload_in_metadata": "default/people/0",
    "failed_status_in_metadata": "failed",
}


def filters(instance: str, rules: str, **files: str) -> list[dict[str, Any]]:
    mesh = mesh_of({"workloads.yaml": WORKLOADS, "mesh/it.yaml": rules, **files})
    return verification(mesh, mesh.instances[instance])


def provider(extra: str) -> dict[str, Any]:
    (filter_,) = filters("api-v1", RULES.replace("EXTRA", extra))
    config = filter_["typed_config"]
    assert (filter_["name"], config["rules"]) == (
        "envoy.filters.http.jwt_authn",
        [{"match": {"prefix": "/"}, "requires": {"allow_missing": {}}}],
    )
    (only,) = config["providers"].values()
    return dict(only)


@pytest.mark.parametrize(
    ("extra", "more"),
    [
        ("", {}),
        ("audiences: [x, y]", {"audiences": ["x", "y"]}),
        ("forwardOriginalToken: true", {"forward": True}),
        ("fromHeaders: [{name: X-A, prefix: 'T '}]", {"from_headers": [{"name": "x-a", "value_prefix": "T "}]}),
        ("fromHeaders: [{name: x-a}]", {"from_headers": [{"name": "x-a", "value_prefix": ""}]}),
        ("fromParams: [a, b]", {"from_params": ["a", "b"]}),
        ("fromCookies: [a]", {"from_cookies": ["a"]}),
        ("outputPayloadToHeader: X-All", {"forward_payload_header": "x-all"}),
        (
            "outputClaimToHeaders: [{header: X-B, claim: b.c}]",
            {"claim_to_headers": [{"header_name": "x-b", "claim_name": "b.c"}]},
        ),
        ("spaceDelimitedClaims: [groups]", {}),
    ],
)
def test_each_field_is_where_envoy_has_it(extra: str, more: dict[str, Any]) -> None:
    assert provider(extra) == PROVIDER | more


def test_keys_that_are_not_there_yet_are_nobodys() -> None:
    uri = "https://a/keys"
    rules = RULES.replace("EXTRA", "").replace(f"jwks: '{KEYS}'", f"jwksUri: {uri}")

    def keys(**files: str) -> str:
        (filter_,) = filters("api-v1", rules, **files)
        return str(filter_["typed_config"]["providers"]["default/people/0"]["local_jwks"]["inline_string"])

    assert keys() == nobodys_keys()
    assert keys(**{uri: KEYS}) == parse_jwks(KEYS)


def test_who_believes_nobody_has_no_filter() -> None:
    assert filters("web-v1", RULES.replace("EXTRA", "")) == []


def http_filters(listener: dict[str, Any]) -> list[dict[str, Any]]:
    (chain,) = listener["filter_chains"]
    return list(chain["filters"][-1]["typed_config"]["http_filters"])


@pytest.mark.parametrize(("instance", "listener"), [("api-v1", "api-v1/inbound"), ("ingress", "ingress/gateway/8080")])
def test_tokens_are_verified_before_policyd_is_asked_and_told_to_it(instance: str, listener: str) -> None:
    rules = RULES.replace("EXTRA", "").replace("  selector: {matchLabels: {app: api}}\n", "")
    mesh = mesh_of({"workloads.yaml": WORKLOADS, "mesh/it.yaml": rules})
    snapshot = build_snapshots(mesh, CONTROL)[instance]

    found = {one["name"]: one["typed_config"] for one in http_filters(shown(snapshot.of(LISTENER)[listener]))}
    names = list(found)
    verifies, decides = "envoy.filters.http.jwt_authn", "envoy.filters.http.ext_authz"
    assert names[names.index(verifies) :][:2] == [verifies, decides]
    asked = found[decides]
    assert asked["metadata_context_namespaces"] == ["policyd", "envoy.filters.http.jwt_authn"]
    assert {"exact": "authorization"} in asked["disallowed_headers"]["patterns"]


@pytest.mark.parametrize(("instance", "listener"), [("api-v1", "api-v1/inbound"), ("ingress", "ingress/gateway/8080")])
def test_what_the_filter_refuses_has_an_id_and_is_told_under_the_name_of_its_listener(
    instance: str, listener: str
) -> None:
    rules = RULES.replace("EXTRA", "").replace("  selector: {matchLabels: {app: api}}\n", "")
    made = build_snapshots(mesh_of({"workloads.yaml": WORKLOADS, "mesh/it.yaml": rules}), CONTROL)[instance]
    (chain,) = shown(made.of(LISTENER)[listener])["filter_chains"]
    manager = chain["filters"][-1]["typed_config"]

    (log,) = [one["typed_config"] for one in manager["access_log"] if one["name"] == "envoy.access_loggers.http_grpc"]
    assert (log["common_config"]["log_name"], log["additional_response_headers_to_log"]) == (
        listener,
        ["x-policyd-decision-id"],
    )
    for mapper in manager["local_reply_config"]["mappers"]:
        (added,) = mapper["headers_to_add"]
        assert (added["header"]["key"], added["append_action"]) == ("x-policyd-decision-id", "ADD_IF_ABSENT")


def test_where_nobody_is_believed_no_metadata_is_told() -> None:
    mesh = mesh_of({"workloads.yaml": WORKLOADS})
    listener = shown(build_snapshots(mesh, CONTROL)["api-v1"].of(LISTENER)["api-v1/inbound"])

    assert "jwt_authn" not in json.dumps(listener)


@pytest.mark.e2e
@pytest.mark.parametrize("instance", ["api-v1", "ingress"])
def test_the_real_envoy_accepts_it_in_its_strictest_mode(tmp_path: Path, instance: str) -> None:
    extra = (
        "audiences: [x], forwardOriginalToken: true, fromHeaders: [{name: a, prefix: 'T '}], fromParams: [b],"
        " fromCookies: [c], outputPayloadToHeader: d, outputClaimToHeaders: [{header: e, claim: f.g}]"
    )
    rules = RULES.replace("EXTRA", extra).replace("  selector: {matchLabels: {app: api}}\n", "")
    rules += "    - {issuer: https://b, jwksUri: https://b/keys}\n"
    snapshot = build_snapshots(mesh_of({"workloads.yaml": WORKLOADS, "mesh/it.yaml": rules}), CONTROL)[instance]
    command = [str(envoy_api.envoy_binary(None)), "--mode", "validate", "--reject-unknown-dynamic-fields", "-c"]

    done = subprocess.run([*command, str(static(snapshot, tmp_path))], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr[-2000:]
