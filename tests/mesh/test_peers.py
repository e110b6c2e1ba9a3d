"""PeerAuthentications: the narrowest level has the word, and what could not hold is refused."""

from __future__ import annotations

import pytest

from policyd.mesh.model import Listener
from tests.mesh.sample import GOOD, meshed, problems

MESH, SPACE, WORKLOAD = "istio-system", "default", "default"


def peers(name: str, namespace: str, spec: str) -> str:
    return f"""\
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{{spec}}}
"""


def folder(*documents: str) -> dict[str, str]:
    return {**GOOD, "mesh/peers.yaml": "".join(documents)}


API = "selector: {matchLabels: {app: api}}"
V2 = "selector: {matchLabels: {version: v2}}"


@pytest.mark.parametrize(
    ("documents", "web", "api_v1", "api_v2"),
    [
        ([], "STRICT", "STRICT", "STRICT"),
        ([peers("m", MESH, "mtls: {mode: PERMISSIVE}")], "PERMISSIVE", "PERMISSIVE", "PERMISSIVE"),
        ([peers("m", MESH, "mtls: {mode: UNSET}")], "STRICT", "STRICT", "STRICT"),
        ([peers("m", MESH, "mtls: {mode: DISABLE}"), peers("n", SPACE, "mtls: {mode: STRICT}")],
         "STRICT", "STRICT", "STRICT"),
        ([peers("m", MESH, "mtls: {mode: DISABLE}"), peers("n", SPACE, "mtls: {}")],
         "DISABLE", "DISABLE", "DISABLE"),
        ([peers("n", SPACE, "mtls: {mode: PERMISSIVE}"), peers("w", SPACE, f"{API}, mtls: {{mode: DISABLE}}")],
         "PERMISSIVE", "DISABLE", "DISABLE"),
        ([peers("w", SPACE, f"{V2}, mtls: {{mode: DISABLE}}")], "STRICT", "STRICT", "DISABLE"),
        ([peers("w", MESH, f"{V2}, mtls: {{mode: PERMISSIVE}}"), peers("n", SPACE, "mtls: {mode: DISABLE}")],
         "DISABLE", "DISABLE", "PERMISSIVE"),
        ([peers("w", SPACE, f"{API}, mtls: {{mode: STRICT}}, portLevelMtls: {{8080: {{mode: DISABLE}}}}")],
         "STRICT", "DISABLE", "DISABLE"),
        ([peers("w", SPACE, f"{API}, mtls: {{mode: PERMISSIVE}}, portLevelMtls: {{8080: {{mode: UNSET}}}}")],
         "STRICT", "PERMISSIVE", "PERMISSIVE"),
    ],
)  # fmt: skip
def test_the_narrowest_level_has_the_word(documents: list[str], web: str, api_v1: str, api_v2: str) -> None:
    instances = meshed(folder(*documents)).instances

    found = tuple(instances[name].ports[0].peers for name in ("web-v1", "api-v1", "api-v2"))
    assert found == (web, api_v1, api_v2)


@pytest.mark.parametrize(
    ("mode", "listeners"),
    [
        ("STRICT", {"web-v1/inbound": True}),
        ("PERMISSIVE", {"web-v1/inbound": True, "web-v1/inbound/plaintext": False}),
        ("DISABLE", {"web-v1/inbound/plaintext": False}),
    ],
)
def test_who_comes_in_plain_text_is_nobody(mode: str, listeners: dict[str, bool]) -> None:
    mesh = meshed(folder(peers("n", SPACE, f"mtls: {{mode: {mode}}}")))
    found = {one.name: one for one in mesh.listeners.values() if one.instance == "web-v1" and one.side == "inbound"}

    web = mesh.instances["web-v1"]
    assert found == {
        name: Listener(name, "inbound", "web-v1", web.workload, "web.default", 80, verifies)
        for name, verifies in listeners.items()
    }


@pytest.mark.parametrize(
    ("documents", "problem"),
    [
        ([peers("n", "far", "mtls: {mode: STRICT}")],
         "4: the PeerAuthentication `far/n` holds for no instance; compare its namespace (`istio-system` is all of "
         "them) and its labels with workloads.yaml"),
        ([peers("w", SPACE, "selector: {matchLabels: {istio: ingressgateway}}")],
         "5: the PeerAuthentication `default/w` holds for no instance; compare its namespace (`istio-system` is all of "
         "them) and its labels with workloads.yaml"),
        ([peers("a", SPACE, "mtls: {mode: STRICT}"), peers("b", SPACE, "mtls: {mode: STRICT}")],
         "9: `web-v1` has a PeerAuthentication for its namespace already, `default/a`; make one of both"),
        ([peers("a", SPACE, f"{API}, mtls: {{}}"), peers("b", SPACE, f"{V2}, mtls: {{}}")],
         "9: `api-v2` has a PeerAuthentication for its workload already, `default/a`; make one of both"),
        ([peers("a", SPACE, "portLevelMtls: {8080: {mode: STRICT}}")],
         "5: `spec`: `portLevelMtls` is of the workloads that a `selector` names; add it"),
        ([peers("a", SPACE, f"{API}, portLevelMtls: {{80: {{mode: STRICT}}}}")],
         "5: none of the selected workloads has port 80; they have 8080 (`port` of workloads.yaml)"),
        ([peers("a", SPACE, f"{API}, portLevelMtls: {{http: {{mode: STRICT}}}}")],
         "5: `spec.portLevelMtls.http`: `http` is no port; write the workload's own, as in `8080`"),
        ([peers("a", SPACE, "mtls: {mode: strict}")],
         "5: `spec.mtls.mode` must be 'UNSET', 'DISABLE', 'PERMISSIVE' or 'STRICT', not the text `strict`"),
        ([peers("a", SPACE, "peers: []")],
         "5: unknown field `peers` in `spec`; known are `mtls`, `portLevelMtls`, `selector`"),
    ],
)  # fmt: skip
def test_what_could_not_hold_is_refused_with_its_line(documents: list[str], problem: str) -> None:
    assert problems(folder(*documents)) == [f"mesh/peers.yaml:{problem}"]
