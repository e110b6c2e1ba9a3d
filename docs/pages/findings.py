"""findings.md: what checks and analyses of a folder can find."""

from __future__ import annotations

from collections.abc import Iterator

from docs.pages.tables import code, table
from policyd.policy.finding_model import RULES


def findings() -> Iterator[str]:
    """Every code, those of the mesh first as Istio has them."""
    yield from ("# Findings", "")
    yield "What `policyd mesh analyze` and `policyd policy check` find. Codes with `IST` mean what they mean in Istio;"
    yield from ("`PM` are our own about the mesh, `PD` about policies. A code keeps its meaning for ever.", "")
    rows = ((code(one.code), one.name, one.severity, one.meaning) for _, one in sorted(RULES.items()))
    yield from table(("code", "name", "level", "what it says"), rows)
