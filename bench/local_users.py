"""What deciding by a user's claims costs: who has a token, by nobody, by hand, by the compiled filter, and by policyd.

Each request brings a token of an issuer inside this benchmark, which every variant verifies; then one role decides. By
hand that is a rule over what the verifying filter wrote. The compiled way is a sidecar's whole: the filter that says
who the user is, the routes that wait for its word with policyd's behind them, and the rules. No bar is set here: all
of them verify tokens, and what that takes stands between them more than who decides.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.engine_sets import traffic_schema
from bench.issuer import Issuer
from bench.neighbours import added, compared, throughput
from bench.proxy import PEER, Fields, Variants, World, rbac_by_hand, rig
from bench.table import Row, row
from policyd.authz.ruling import make_ruling
from policyd.cedar.policies import load_policies
from policyd.local import envoy, users
from policyd.local.compile import Compiler
from policyd.local.replies import identified
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.placement import assumed
from policyd.mesh.tokens import rules_of
from policyd.names import METADATA_TOKENS
from policyd.xds.resources import counting, deciding, filters, tokens
from policyd.xds.resources.model import Control, Switch

ROUNDS: Final = {"verified": 6, "by hand": 10, "policyd": 6}
CALLER: Final = "spiffe://cluster.local/ns/default/sa/ingress"
POLICY: Final = """\
@id("readers")
permit (principal, action in Action::"http", resource == Service::"ingress.default")
when { context has user && context.user.hasTag("roles") && context.user.getTag("roles").contains("reader") };
"""
TOKENS: Final = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people, namespace: default}}
spec: {{jwtRules: [{{issuer: "{}", jwks: '{}'}}]}}
"""


def run(listener: str, texts: Mapping[str, str], fields: Fields, told: Fields) -> Iterator[Row]:
    """Compare; `texts` are the files of a mesh with this listener, and `told` are `fields` with the agent's log."""
    issuer = Issuer("https://bench")
    files = {**texts, "mesh/tokens.yaml": TOKENS.format(issuer.name, issuer.jwks)}
    token = issuer.token(sub="alice", roles=["reader", "writer"], email="alice@example.com")
    world = World(partial(_folder, files), CALLER, listener, (PEER, f"authorization: Bearer {token}"))
    with rig(partial(_variants, listener, files, fields, told), world) as made:
        for other, rounds in ROUNDS.items():
            pairs = [compared(made, (other, "compiled"), number % 2) for number in range(rounds)]
            for name, loads in ((other, [early for early, _ in pairs]), ("compiled", [late for _, late in pairs])):
                cost = median(load.envoy_cpu for load in loads)
                yield row(f"users, compiled / {other}: CPU of Envoy, {name}", cost, "us/request")
            yield from throughput(f"users: throughput, compiled / {other}", pairs)
        alone = [compared(made, ("verified", "compiled"), number % 2, 1) for number in range(ROUNDS["policyd"])]
        yield from added("users: p50 added to verifying, at one connection", alone)


@contextmanager
def _folder(files: Mapping[str, str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="policyd-bench-") as name:
        for path, text in {**files, "policies/readers.cedar": POLICY}.items():
            file = Path(name) / "mesh" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        yield Path(name) / "mesh"


def _variants(listener: str, files: Mapping[str, str], fields: Fields, told: Fields, control: Control) -> Variants:
    declaration = declare(dict(files))
    mesh = build(declaration, "cluster.local", assumed(declaration))
    schema = traffic_schema()
    ruling = make_ruling(mesh, load_policies({"readers.cedar": POLICY}, schema), schema)
    compiled = Compiler(ruling).compile(mesh.listeners[listener])
    instance = mesh.instances[mesh.listeners[listener].instance]
    verified = tokens.verification(mesh, instance)
    central = Switch(identified(), (), (), 0.0, behind=(users.told(),))
    asked = users.asked(compiled.issuers, compiled.claims)
    here = replace(central, revision=ruling.revision, rbac=envoy.rbac(compiled), asked=asked)
    routes = deciding.table(listener, _answered, replace(here, told=tuple(users.is_told())))
    (rule,) = rules_of(mesh.request_authentications, instance)
    made: Variants = {
        "verified": (verified, fields),
        "by hand": ([dict(central.front), *verified, _by_hand(rule.name)], told),
        "compiled": (deciding.chain(control, here, verified), {**told, "route_config": routes}),
        "policyd": ([*verified, filters.authorization(control, tokens=True)], fields),
    }
    return {name: ([counting.hears_who(), *chain], fields) for name, (chain, fields) in made.items()}


def _answered(said: dict[str, Any]) -> dict[str, Any]:
    answer = {"status": 200, "body": {"inline_string": "ok"}}
    return {"match": {"prefix": "/"}, "direct_response": answer, "typed_per_filter_config": said}


def _by_hand(rule: str) -> dict[str, Any]:
    """The rule by hand of all benchmarks, for whom a token gives the role (config.rbac.v3.Principal)."""
    reader = {"list_match": {"one_of": {"string_match": {"exact": "reader"}}}}
    claim = {"filter": METADATA_TOKENS, "path": [{"key": rule}, {"key": "roles"}], "value": reader}
    found = rbac_by_hand()
    (policy,) = found["typed_config"]["rules"]["policies"].values()
    policy["principals"] = [{"sourced_metadata": {"metadata_matcher": claim}}]
    return found
