"""Enforcements: the narrowest level has the word, whole, and what could not hold is refused."""

from __future__ import annotations

import pytest

from policyd.mesh.enforcements import enforcement_of
from tests.mesh.sample import GOOD, meshed, problems

MESH, SPACE = "istio-system", "default"
API = "selector: {matchLabels: {app: api}}"


def enforcement(name: str, namespace: str, spec: str) -> str:
    return f"""\
---
apiVersion: policyd.io/v1
kind: Enforcement
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{{spec}}}
"""


def folder(*documents: str) -> dict[str, str]:
    return {**GOOD, "mesh/enforcements.yaml": "".join(documents)}


@pytest.mark.parametrize(
    ("documents", "web", "api"),
    [
        ([], None, None),
        ([enforcement("m", MESH, "enforcement: auto")], "auto", "auto"),
        ([enforcement("m", MESH, "enforcement: auto"), enforcement("n", SPACE, "enforcement: central")],
         "central", "central"),
        ([enforcement("n", SPACE, "enforcement: local"), enforcement("w", SPACE, f"{API}, enforcement: central")],
         "local", "central"),
        ([enforcement("w", MESH, f"{API}, enforcement: auto"), enforcement("n", SPACE, "enforcement: local")],
         "local", "auto"),
    ],
)  # fmt: skip
def test_the_narrowest_level_has_the_word(documents: list[str], web: str | None, api: str | None) -> None:
    mesh = meshed(folder(*documents))

    found = [enforcement_of(mesh.enforcements, mesh.instances[name]) for name in ("web-v1", "api-v1", "edge")]

    assert [one and one.spec.enforcement for one in found] == [web, api, None]


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([enforcement("a", SPACE, "enforcement: fast")], "mesh/enforcements.yaml:5: "),
        ([enforcement("a", SPACE, "")], "`spec.enforcement` is missing"),
        ([enforcement("a", SPACE, "enforcement: local, durability: fsync")], "async"),
        ([enforcement("a", SPACE, "enforcement: auto, samplePercent: 101")], "100"),
        ([enforcement("a", SPACE, "enforcement: central, durability: async")], "for `local` and `auto`"),
        ([enforcement("a", "elsewhere", "enforcement: auto")], "holds for no instance"),
        ([enforcement("a", SPACE, "selector: {matchLabels: {app: apl}}, enforcement: auto")], "holds for no instance"),
        ([enforcement("a", SPACE, "enforcement: auto"), enforcement("b", SPACE, "enforcement: local")],
         "`web-v1` has an Enforcement for its namespace already, `default/a`"),
        ([enforcement("a", SPACE, "enforcement: auto"), enforcement("a", SPACE, "enforcement: auto")],
         "declared twice"),
    ],
)  # fmt: skip
def test_what_could_not_hold_is_refused(documents: list[str], said: str) -> None:
    assert any(said in one for one in problems(folder(*documents))), problems(folder(*documents))
