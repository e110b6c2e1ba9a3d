"""What applies to a service or a workload, in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from policyd.analysis.describe import Description, describe
from policyd.cli.exits import Exit
from policyd.errors import NotFound
from tests.cli.conftest import Said, policyd  # noqa: F401 - the command line as a fixture
from tests.way.folders import loaded, task

SA = "spiffe://cluster.local/ns/default/sa/bookinfo"
PERMISSIVE = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: lenient}
spec: {selector: {matchLabels: {app: reviews}}, mtls: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users}
spec:
  selector: {matchLabels: {app: reviews}}
  jwtRules: [{issuer: https://login.example.com, jwksUri: https://login.example.com/keys.json}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: near}
spec: {egress: [{hosts: [./*]}]}
"""


def test_a_service() -> None:
    files = {**task("subsets", "reviews-by-user"), "mesh/more.yaml": PERMISSIVE}
    found = describe("reviews", loaded(files), "default")

    assert found == Description(
        "service",
        "reviews.default",
        {
            "ports": ("9080 (http): http",),
            "instances": tuple(
                f"reviews-{version} (app=reviews, version={version}) as {SA}-reviews" for version in ("v1", "v2", "v3")
            ),
            "routed by": (
                "VirtualService default/reviews (mesh/reviews-by-user.yaml:3): 2 rules for callers in the mesh",
            ),
            "treated by": ("DestinationRule default/reviews (mesh/subsets.yaml:18)",),
            "subsets": ("v1: reviews-v1", "v2: reviews-v2", "v3: reviews-v3"),
            "mutual TLS": ("port 9080: PERMISSIVE (PeerAuthentication default/lenient)",),
            "tokens": ("of https://login.example.com are verified (RequestAuthentication default/users)",),
            "policies": ("permit `reviews-from-productpage` (policies/reviews.cedar:2)",),
            "callers": (f"{SA}-productpage may GET under conditions",),
        },
    )


def test_a_service_that_strangers_reach() -> None:
    headings = describe("productpage.default.svc.cluster.local", loaded(), "default").headings

    assert headings["reached at"] == ("ingress port 8080 for *: VirtualService default/bookinfo (mesh/gateway.yaml:9)",)
    assert headings["callers"][0].startswith(f"{SA}-ingress may ")


@pytest.mark.parametrize("name", ["reviews-v2", f"{SA}-ratings", "bookinfo-ratings"])
def test_a_workload_by_any_of_its_names(name: str) -> None:
    found = describe(name, loaded({"mesh/more.yaml": PERMISSIVE}), "default")

    assert found.kind == "sidecar"
    assert found.headings["knows"] == ("what Sidecar default/near lets through",)
    assert "ingress.default: everything" in found.headings["may call"]


def test_a_service_that_nobody_may_call_says_so() -> None:
    nothing = '@id("none")\npermit (principal in Group::"nobody", action, resource == Service::"details.default");\n'
    files = {"policies/details.cedar": nothing, "groups.yaml": "groups: {nobody: {}}\n", "checks.yaml": ""}
    headings = describe("details", loaded(files), "default").headings

    assert headings["callers"] == ("nobody: no policy permits anybody anything",)


def test_a_name_that_is_none() -> None:
    with pytest.raises(NotFound) as refused:
        describe("revews", loaded(), "default")

    assert str(refused.value) == "`revews` is no service and no workload; did you mean `reviews`?"


def test_each_name_that_is_one_is_listed_once() -> None:
    with pytest.raises(NotFound) as refused:
        describe("zzz", loaded(), "default")

    listed = str(refused.value).partition("there are ")[2].split(", ")
    assert "ingress" in listed, "a gateway is an instance and a service of one name"
    assert len(listed) == len(set(listed))


def test_what_is_printed(policyd: Callable[..., Said], root: Path) -> None:  # noqa: F811
    said = policyd("mesh", "describe", "details", "--dir", root / "examples" / "bookinfo")
    value = policyd("mesh", "describe", "details", "--dir", root / "examples" / "bookinfo", "--json").value

    assert said.code == Exit.OK
    assert said.out.splitlines()[:3] == [
        "service details.default",
        "  ports       9080 (http): http",
        f"  instances   details-v1 (app=details, version=v1) as {SA}-details",
    ]
    assert (value["kind"], value["name"], value["headings"]["ports"]) == (
        "service", "details.default", ["9080 (http): http"],
    )  # fmt: skip
