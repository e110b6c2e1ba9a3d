"""What the author's tools need of a Ruling, so that they decide exactly as the service does."""

from __future__ import annotations

from typing import Protocol

from policyd.cedar.http import HttpFacts
from policyd.cedar.model import Decision, Request
from policyd.cedar.policies import PolicySet
from policyd.cedar.schema import Schema
from policyd.mesh.model import Mesh


class Ruling(Protocol):
    """All that a decision depends on besides the request (authz.ruling.Ruling is one)."""

    @property
    def mesh(self) -> Mesh:
        """The Mesh that names are resolved in."""

    @property
    def policy_set(self) -> PolicySet:
        """The policies in force."""

    @property
    def schema(self) -> Schema:
        """The schema that they are valid for."""

    def request(self, facts: HttpFacts) -> Request:
        """The question to ask of the engine; raises UnacceptablePath or IncompleteRequest."""

    def decide(self, request: Request) -> Decision:
        """The answer; raises DecisionError."""
