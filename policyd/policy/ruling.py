"""What the author's tools need of a Ruling, so that they decide exactly as the service does."""

from __future__ import annotations

from typing import Protocol

from policyd.cedar.http import HttpFacts
from policyd.cedar.model import Decision, Entity, Request
from policyd.cedar.policies import PolicySet
from policyd.cedar.reads import Reads
from policyd.cedar.schema import Schema
from policyd.mesh.model import Mesh
from policyd.spiffe import SpiffeId


class Entities(Protocol):
    """The Mesh as Cedar's entities (authz.entities.MeshEntities is one)."""

    def principal(self, id_: SpiffeId | None) -> Entity:
        """The caller with this identity; None is the unauthenticated one."""

    def labels(self, instance: str) -> Entity:
        """The labels of an instance; without one there are none."""


class Ruling(Protocol):
    """All that a decision depends on besides the request (authz.ruling.Ruling is one)."""

    @property
    def revision(self) -> str:
        """The hash of all of it."""

    @property
    def mesh(self) -> Mesh:
        """The Mesh that names are resolved in."""

    @property
    def policy_set(self) -> PolicySet:
        """The policies in force."""

    @property
    def schema(self) -> Schema:
        """The schema that they are valid for."""

    @property
    def entities(self) -> Entities:
        """Who and what the policies can speak of."""

    def request(self, facts: HttpFacts) -> Request:
        """The question to ask of the engine; raises UnacceptablePath or IncompleteRequest."""

    def reads(self, request: Request) -> Reads:
        """What the policies that can apply to a request read of it; raises DecisionError."""

    def decide(self, request: Request) -> Decision:
        """The answer; raises DecisionError."""
