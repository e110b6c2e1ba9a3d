"""What an author gets to read: the policies of Istio's own tasks over Bookinfo."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.authz.path import canonical_path
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.mesh.model import Mesh
from policyd.policy.fmt import formatted
from policyd.policy.istio.identity import TrustDomains
from policyd.policy.istio.read import read_policies
from policyd.policy.istio.translate import Options, translate
from tests.authz.conftest import folder
from tests.authz.conftest import mesh as bookinfo
from tests.golden import check_text
from tests.policy.istio.oracle import allows
from tests.policy.istio.world import DOMAINS, ISTIO, call_at, decided, ruling_of
from tests.policy.istio.yaml_values import values_of

__all__ = ["bookinfo", "folder"]

POLICIES = Path(__file__).parent / "policies"
OPTIONS = {
    "bookinfo": Options("default", TrustDomains("cluster.local")),
    "deny": Options("default", DOMAINS),
}
CALLERS = ("bookinfo-productpage", "bookinfo-reviews", "bookinfo-tester", "legacy", "")


@pytest.mark.parametrize("name", ["bookinfo", "deny"])
def test_the_cedar_is_as_one_would_write_it(
    name: str, bookinfo: Mesh, schema: Schema, request: pytest.FixtureRequest
) -> None:
    text = (POLICIES / f"{name}.yaml").read_text()

    made = translate(read_policies({f"{name}.yaml": text}, "default"), bookinfo, OPTIONS[name], canonical_path)

    shown = "\n".join(f"// ---- {file}\n{text}" for file, text in made.files.items())
    notes = "".join(f"note: {one}\n" for one in made.notes)
    check_text(f"policy/istio_{name}.txt", shown + notes, update=request.config.getoption("--update-golden"))
    load_policies(made.files, schema)
    assert {file: formatted(text, file) for file, text in made.files.items()} == made.files


@pytest.mark.parametrize("name", ["bookinfo", "deny"])
def test_it_decides_as_istio_does(name: str, bookinfo: Mesh, schema: Schema) -> None:
    text = (POLICIES / f"{name}.yaml").read_text()
    policies = read_policies({f"{name}.yaml": text}, "default")
    ruling = ruling_of(translate(policies, bookinfo, OPTIONS[name], canonical_path).files, bookinfo, schema)

    for instance in sorted(bookinfo.instances):
        for account in CALLERS:
            for method, path in (("GET", "/"), ("POST", "/admin/x"), ("DELETE", "/admin/x/y"), ("GET", "/metrics/a")):
                caller = f"spiffe://cluster.local/ns/default/sa/{account}" if account else None
                call = call_at(instance, bookinfo, principal=caller, method=method, path=path, source_ip="10.9.1.1")
                assert decided(ruling, call, instance) == allows(values_of(text), call, ISTIO), call
