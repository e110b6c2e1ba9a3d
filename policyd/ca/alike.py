"""Orders that are alike: what policies are asked about them, and what they answered, is made once.

Law: two orders are alike where policies see the same of both, their time in seconds included, under one mesh and one
revision. So nothing is remembered for longer than the second that it is of, and no answer outlives what it was made by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from policyd.ca.issuance import Entities, Order, cedar_request
from policyd.cedar.model import Decision, Request
from policyd.mesh.model import Mesh

Decide = Callable[[Request], Decision]


@dataclass(slots=True)
class Asked:
    """What the policies are asked; they answer once."""

    request: Request
    _decision: Decision | None = field(default=None, repr=False)

    def decided(self, decide: Decide) -> Decision:
        """Their answer; raises what `decide` raises, and then they are asked again."""
        if self._decision is None:
            self._decision = decide(self.request)
        return self._decision


class _Second(NamedTuple):
    """One second under one mesh and one revision, and what was asked in it."""

    time: datetime
    mesh: Mesh
    revision: str
    asked: dict[Order, Asked]


class Alike:
    """What was asked within this second, by order; safe for threads, of which two may ask the same at worst."""

    def __init__(self, entities: Entities) -> None:
        self._entities = entities
        self._second: _Second | None = None

    def of(self, order: Order, mesh: Mesh, revision: str) -> Asked:
        """What is asked for `order` under `mesh` and the policies of `revision`."""
        second = self._second
        if second is None or second.time != order.time or second.mesh is not mesh or second.revision != revision:
            second = self._second = _Second(order.time, mesh, revision, {})
        found = second.asked.get(order)
        if found is None:
            found = second.asked[order] = Asked(cedar_request(order, mesh, self._entities))
        return found
