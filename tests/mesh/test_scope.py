"""Sidecars: the narrowest has the word on what a proxy knows, and what could not hold is refused."""

from __future__ import annotations

import pytest

from policyd.mesh.scope import scope_of
from tests.mesh.sample import GOOD, meshed, problems

WORKLOADS = GOOD["workloads.yaml"].replace(
    "gateways:", "  far-v1: {service: far, port: 80, namespace: away, labels: {tier: back}}\ngateways:"
)


def sidecar(name: str, namespace: str, hosts: str, labels: str = "") -> str:
    selector = f"workloadSelector: {{labels: {{{labels}}}}}, " if labels else ""
    return f"""\
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{{selector}egress: [{{hosts: {hosts}}}]}}
"""


def folder(*documents: str) -> dict[str, str]:
    return {**GOOD, "workloads.yaml": WORKLOADS, "mesh/sidecars.yaml": "".join(documents)}


ALL = {"web", "api", "edge", "api-canary", "far"}
DEFAULT = ALL - {"far"}


@pytest.mark.parametrize(
    ("documents", "web", "far"),
    [
        ([], ALL, ALL),
        ([sidecar("s", "default", '["./*"]')], DEFAULT, ALL),
        ([sidecar("s", "istio-system", '["./*"]')], DEFAULT, {"far"}),
        ([sidecar("s", "default", '["*/*"]')], ALL, ALL),
        ([sidecar("s", "default", '["~/*"]')], set(), ALL),
        ([sidecar("s", "default", '["away/*"]')], {"far"}, ALL),
        ([sidecar("s", "default", '["./api.default.svc.cluster.local"]')], {"api"}, ALL),
        ([sidecar("s", "default", '["*/far.away"]')], {"far"}, ALL),
        ([sidecar("s", "default", '["./far.away"]')], set(), ALL),
        ([sidecar("s", "default", '["*/*.away.svc.cluster.local"]')], {"far"}, ALL),
        ([sidecar("s", "default", '["~/*"]'), sidecar("w", "default", '["*/*"]', "app: web")], ALL, ALL),
        ([sidecar("m", "istio-system", '["~/*"]'), sidecar("s", "default", '["./*"]')], DEFAULT, set()),
    ],
)
def test_the_narrowest_says_what_is_known(documents: list[str], web: set[str], far: set[str]) -> None:
    mesh = meshed(folder(*documents))

    def known(instance: str) -> set[str]:
        scope = scope_of(mesh.sidecars, mesh.instances[instance])
        return {one.name for one in mesh.services.values() if scope is None or scope.sees(one)}

    assert (known("web-v1"), known("far-v1")) == (web, far)


def test_a_gateway_knows_everything() -> None:
    mesh = meshed(folder(sidecar("s", "default", '["~/*"]')))

    assert scope_of(mesh.sidecars, mesh.instances["edge"]) is None


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (sidecar("s", "nowhere", '["./*"]'),
         "4: the Sidecar `nowhere/s` holds for no instance; compare its namespace (`istio-system` is all of them) and "
         "its labels with workloads.yaml"),
        (sidecar("s", "istio-system", '["./*"]', "app: web"),
         "5: the Sidecar `istio-system/s` holds for no instance; compare its namespace (`istio-system` is all of them) "
         "and its labels with workloads.yaml"),
        (sidecar("a", "default", '["./*"]') + sidecar("b", "default", '["./*"]'),
         "9: `web-v1` has a Sidecar for its namespace already, `default/a`; make one of both"),
        (sidecar("a", "default", '["./*"]', "app: api") + sidecar("b", "default", '["./*"]', "version: v2"),
         "9: `api-v2` has a Sidecar for its workload already, `default/a`; make one of both"),
        (sidecar("s", "default", '["./apo.default"]'),
         "5: nothing in the mesh is called `apo.default`; did you mean `api.default`?"),
        (sidecar("s", "default", "[api]"),
         "5: `spec.egress[0].hosts[0]`: `api` has no namespace; write `./*` for one's own, `*/api` for any"),
        (sidecar("s", "default", '["./*"]').replace("spec: {", "spec: {ingress: [], "),
         "5: field `ingress` of Sidecar is not supported yet in `spec`; remove it, so that nothing is thought to hold "
         "that does not"),
        (sidecar("s", "default", '["./*"]').replace("spec: {", "spec: {outboundTrafficPolicy: {}, "),
         "5: field `outboundTrafficPolicy` of Sidecar is not supported yet in `spec`; remove it, so that nothing is "
         "thought to hold that does not"),
    ],
)  # fmt: skip
def test_what_could_not_hold_is_refused_with_its_line(document: str, problem: str) -> None:
    assert problems(folder(document)) == [f"mesh/sidecars.yaml:{problem}"]
