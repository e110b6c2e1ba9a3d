"""Matches by claims to matchers of metadata, under each rule that is believed at the gateway."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from policyd import envoy_api
from policyd.envoy_api import LISTENER, ROUTE
from policyd.xds.resources.build import build_snapshots
from policyd.xds.snapshot import Snapshot
from tests.fakes.issuer import Issuer
from tests.xds.resources.folders import CONTROL, WORKLOADS, mesh_of
from tests.xds.resources.test_build import shown, static

A, B = "istio-system/people/0", "istio-system/people/1"
FILTER = "envoy.filters.http.jwt_authn"


def snapshot(match: str) -> Snapshot:
    keys = Issuer("https://a").jwks
    folder = f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people, namespace: istio-system}}
spec: {{jwtRules: [{{issuer: https://a, jwks: '{keys}'}}, {{issuer: https://b, jwks: '{keys}'}}]}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 8080, name: http, protocol: HTTP}}, hosts: ["*"]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: it}}
spec:
  hosts: ["*"]
  gateways: [edge]
  http:
    - {{match: [{{{match}}}], route: [{{destination: {{host: web}}}}]}}
"""
    return build_snapshots(mesh_of({"workloads.yaml": WORKLOADS, "mesh/it.yaml": folder}), CONTROL)["ingress"]


def told(match: str) -> list[list[dict[str, Any]]]:
    """What each route of a block asks of metadata."""
    table = shown(snapshot(match).of(ROUTE)["gateway/8080"])
    routes = table["virtual_hosts"][0]["routes"][:-1]  # the last says that there is none
    return [route["match"].get("dynamic_metadata", []) for route in routes]


def matcher(rule: str, *claim: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"filter": FILTER, "path": [{"key": key} for key in (rule, *claim)], "value": value, **more}


def text(**wanted: Any) -> dict[str, Any]:
    one = {"string_match": wanted}
    return {"or_match": {"value_matchers": [one, {"list_match": {"one_of": one}}]}}


PRESENT = {"present_match": True}


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ("headers: {x: {exact: y}}", [[]]),
        ('headers: {"@request.auth.claims.role": {exact: x}}',
         [[matcher(rule, "role", value=text(exact="x"))] for rule in (A, B)]),
        ('headers: {"@request.auth.claims[a.b][c]": {}}',
         [[matcher(rule, "a.b", "c", value=PRESENT)] for rule in (A, B)]),
        ('headers: {"@request.auth.claims.role": {prefix: x}, "@request.auth.claims.team": {regex: "y.*"}}',
         [[matcher(rule, "role", value=text(prefix="x")),
           matcher(rule, "team", value=text(safe_regex={"regex": "y.*"}))] for rule in (A, B)]),
        ('headers: {"@request.auth.claims.scope": {exact: read.all}}',
         [[matcher(rule, "scope", value=text(safe_regex={"regex": r"(?:.* )?(?:read\.all)(?: .*)?"}))]
          for rule in (A, B)]),
        ('headers: {"@request.auth.claims.scope": {prefix: read}}',
         [[matcher(rule, "scope", value=text(safe_regex={"regex": "(?:.* )?(?:read[^ ]*)(?: .*)?"}))]
          for rule in (A, B)]),
        ('withoutHeaders: {"@request.auth.claims.sub": {}}',
         [[matcher(rule, "sub", value=PRESENT, invert=True) for rule in (A, B)]]),
    ],
)  # fmt: skip
def test_each_claim_is_asked_of_every_rule_that_is_believed(match: str, found: list[list[dict[str, Any]]]) -> None:
    assert told(match) == found


def test_only_where_routes_go_by_claims_is_a_route_chosen_anew() -> None:
    def anew(match: str) -> set[bool]:
        listener = json.dumps(shown(snapshot(match).of(LISTENER)["ingress/gateway/8080"]))
        return {"clear_route_cache" in listener}

    assert anew('headers: {"@request.auth.claims.role": {exact: x}}') == {True}
    assert anew("headers: {x: {exact: y}}") == {False}


@pytest.mark.e2e
def test_the_real_envoy_accepts_it_in_its_strictest_mode(tmp_path: Path) -> None:
    made = snapshot('headers: {"@request.auth.claims.scope": {exact: a}, "@request.auth.claims.b.c": {}}, '
                    'withoutHeaders: {"@request.auth.claims.d": {prefix: e}}')  # fmt: skip
    command = [str(envoy_api.envoy_binary(None)), "--mode", "validate", "--reject-unknown-dynamic-fields", "-c"]
    done = subprocess.run([*command, str(static(made, tmp_path))], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
