"""What the folder's owner may do: everything that no policy forbids."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from policyd.authz.entities import MeshEntities
from policyd.authz.operators import OWNER, may
from policyd.cedar.engine import Engine
from policyd.cedar.model import Decision
from policyd.cedar.policies import load_policies
from policyd.reload.live import shipped_schemas
from tests.mesh.sample import GOOD, meshed

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
FREEZE = '@id("freeze")\nforbid (principal, action in Action::"touch", resource) when { context.via == "unix" };\n'
PEOPLE = '@id("people")\npermit (principal in Group::"people", action == Action::"apply", resource);\n'
FRIDAY = '@id("friday")\nforbid (principal, action, resource) when { context.time > datetime("2026-11-27") };\n'


@pytest.mark.parametrize(
    ("policies", "uid", "expected"),
    [
        ("", 7, Decision(allowed=True, reasons=(OWNER,))),
        (PEOPLE, 7, Decision(allowed=True, reasons=(OWNER,))),
        (PEOPLE, 1000, Decision(allowed=True, reasons=("people",))),
        (FREEZE, 1000, Decision(allowed=False, reasons=("freeze",))),
        (PEOPLE + FREEZE, 1000, Decision(allowed=False, reasons=("freeze",))),
        (FRIDAY, 7, Decision(allowed=False, reasons=("friday",))),
    ],
)
def test_the_owner_may_act_unless_a_policy_forbids_it(policies: str, uid: int, expected: Decision) -> None:
    schema = shipped_schemas().operators
    engine = Engine(load_policies({"operators.cedar": policies}, schema), schema) if policies else None
    entities = MeshEntities(meshed(GOOD))

    assert may(engine, entities, "cluster.local", uid, "apply", NOW) == expected
