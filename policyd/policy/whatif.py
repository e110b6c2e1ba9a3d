"""Questions to Cedar besides the real one: other policies, single expressions.

Law: Cedar answers, through the same engine as for requests; nothing here evaluates anything. Only policies whose
scope holds the request are asked, which changes no answer: the others do not apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from cedarpy import pst

from policyd.cedar.engine import Engine
from policyd.cedar.model import Decision, Request
from policyd.cedar.policies import Policy, PolicySet
from policyd.cedar.reads import reads_of
from policyd.cedar.schema import Schema
from policyd.cedar.scope import Scopes

ANY: Final = pst.ScopeAny()

Truth = bool | str  # a text is the error that it gives instead


def decide_by(policies: Iterable[Policy], request: Request, schema: Schema) -> Decision:
    """What these policies, and no others, decide; raises DecisionError."""
    scopes = Scopes(request, schema)
    applying = [one for one in policies if all(scopes.match(one.tree))]
    return Engine(_set_of(applying), schema).decide(request)


def evaluate(expressions: Sequence[pst.Expr], request: Request, schema: Schema) -> list[Truth]:
    """What each of these expressions is for a request, each by itself; raises DecisionError."""
    if not expressions:
        return []
    asked = [_permit(str(number), pst.When(one)) for number, one in enumerate(expressions)]
    decision = Engine(_set_of(asked), schema).decide(request)
    truths: list[Truth] = [False] * len(expressions)
    for reason in decision.reasons:
        truths[int(reason)] = True
    for error in decision.errors:
        truths[int(error.policy)] = error.message
    return truths


def _permit(name: str, clause: pst.Clause) -> Policy:
    annotations = pst.FrozenMap(id=name)
    return Policy(
        name, "permit", annotations, "", "", 0, pst.Template(name, "permit", ANY, ANY, ANY, (clause,), annotations)
    )


def _set_of(policies: Sequence[Policy]) -> PolicySet:
    """A set made of policies that were checked when they were loaded."""
    return PolicySet(tuple(policies), reads_of(one.tree for one in policies))
