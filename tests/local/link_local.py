"""A program that asks from a link-local address, of which Envoy tells the interface, too, and prints both answers.

Arguments: the checkout, an address with its zone, and policies, each by which one request is decided. It prints JSON:
of each what policyd and what the compiled filter answer, as status and policy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from policyd.authz.ruling import make_ruling
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import parse_schema
from policyd.local.compile import Compiler
from tests.local import world
from tests.local.rig import ANYWHERE, answers, running
from tests.local.world import Asked, Case


def _main(root: Path, address: str, policies: Sequence[str]) -> None:
    schema = parse_schema((root / "policies/mesh.cedarschema").read_text())
    mesh = world.mesh_of()
    listener = mesh.listeners["shop-v1/inbound"]
    cases = []
    for number, text in enumerate(policies):
        ruling = make_ruling(mesh, load_policies({"p.cedar": text}, schema), schema)
        cases.append(Case(number, ruling, listener, Compiler(ruling).compile(listener)))
    with running(cases, ANYWHERE) as place:
        requests = [Asked(case.number, "GET", b"/", "shop", ()) for case in cases]
        said = [(one.central, one.local) for _, one in answers(place, world.CALLERS[0], address, requests)]
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
