"""Which VirtualService has the rules of a host: the narrowest host, then the nearest one; never two at once."""

from __future__ import annotations

import pytest

from policyd.mesh.precedence import Precedence
from tests.mesh.sample import GOOD, meshed, problems
from tests.mesh.test_delegates import virtual

WORKLOADS = GOOD["workloads.yaml"].replace("  api-v1", "  far-v1: {service: far, port: 80, namespace: shop}\n  api-v1")
ANSWER = [{"directResponse": {"status": 204}}]


def folder(*resources: str) -> dict[str, str]:
    files = {f"mesh/{number}.yaml": text for number, text in enumerate(resources)}
    return {"workloads.yaml": WORKLOADS, **files}


def owner(files: dict[str, str], namespace: str = "default", service: str = "api.default") -> str | None:
    mesh = meshed(files)
    found = Precedence(mesh.virtual_services, namespace, mesh.services).of(mesh.services[service])
    return found.id if found else None


def given(name: str, host: str, namespace: str = "default", *to: str) -> str:
    return virtual(name, namespace, hosts=[host], http=ANSWER, **({"exportTo": list(to)} if to else {}))


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ([], None),
        ([given("a", "api")], "default/a"),
        ([given("a", "web")], None),
        ([given("a", "*")], "default/a"),
        ([given("a", "*.default.svc.cluster.local")], "default/a"),
        ([given("a", "*.shop.svc.cluster.local")], None),
        ([given("a", "*"), given("b", "api")], "default/b"),
        ([given("a", "*"), given("b", "*.default.svc.cluster.local")], "default/b"),
        ([given("a", "api"), given("b", "api", "default", ".")], "default/b"),
        ([given("a", "api"), given("b", "api.default", "shop", "default")], "shop/b"),
        ([given("a", "api.default", "shop", "."), given("b", "api")], "default/b"),
        ([given("a", "api.default", "shop", ".")], None),
    ],
)
def test_the_narrowest_and_nearest_has_the_rules(resources: list[str], expected: str | None) -> None:
    assert owner(folder(*resources)) == expected


def test_callers_of_another_namespace_see_what_is_exported_to_them() -> None:
    files = folder(given("a", "api.default", "shop", "."), given("b", "api"))

    assert (owner(files, "shop"), owner(files, "default")) == ("shop/a", "default/b")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (given("a", "api"), given("b", "api.default.svc.cluster.local")),
        (given("a", "*"), given("b", "*", "shop")),
        (given("a", "shop.example.com"), given("b", "shop.example.com", "shop")),
        (given("a", "api", "default", "."), given("b", "api", "default", ".")),
        (given("a", "api", "default", "shop"), given("b", "api.default", "shop", "shop")),
    ],
)
def test_two_that_are_equally_near_are_refused(first: str, second: str) -> None:
    (problem,) = problems(folder(first, second))

    assert problem.startswith("mesh/1.yaml:1: the host `")
    assert problem.endswith(
        "has its rules in the VirtualService `default/a` already; write all rules of a host into one"
    )
