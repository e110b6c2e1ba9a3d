"""A Ruling: all that a decision depends on besides the request, under one revision.

Law: one value, swapped as a whole; two rulings with the same revision decide alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from policyd.authz.context import CONNECT, HEADERS, action_of, http_context, tcp_context
from policyd.authz.entities import MeshEntities
from policyd.authz.path import canonical_path
from policyd.cedar.engine import Engine
from policyd.cedar.http import HttpFacts
from policyd.cedar.model import Decision, Entity, Request, Uid
from policyd.cedar.policies import PolicySet
from policyd.cedar.reads import Paths, Reads
from policyd.cedar.schema import Schema
from policyd.errors import IncompleteRequest
from policyd.mesh.model import Mesh


@dataclass(frozen=True, slots=True)
class Ruling:
    """The traffic policies in force over a Mesh; `revision` is a SHA-256 in lower-case hex.

    `shadow` are the policies that are tried beside them over the same Mesh, under a revision of their own.
    """

    revision: str
    mesh: Mesh
    policy_set: PolicySet
    schema: Schema = field(repr=False)
    engine: Engine = field(repr=False, compare=False)
    entities: MeshEntities = field(repr=False, compare=False)
    shadow: Ruling | None = None

    @property
    def headers_read(self) -> frozenset[str]:
        """The headers that some policy reads, in lower case; no other is looked at."""
        return self.policy_set.reads.headers

    def request(self, facts: HttpFacts) -> Request:
        """The question to ask of the engine; raises UnacceptablePath, or IncompleteRequest for an unknown
        Service.
        """
        return self._request(facts, None)

    def lean_request(self, facts: HttpFacts) -> Request:
        """As `request`, for who decides and asks no further: what no policy reads may be missing.

        What is tried beside the policies may read anything.
        """
        return self._request(facts, None if self.shadow else self.policy_set.reads.context)

    def _request(self, facts: HttpFacts, read: Paths | None) -> Request:
        resource = self.entities.host(facts.outside) if facts.outside else self.entities.service(facts.service)
        if resource is None:
            raise IncompleteRequest(f"the mesh has no service `{facts.service}`")
        principal = self.entities.principal(facts.principal)
        # of what answers outside nothing is known
        labels = self.entities.labels("" if facts.outside else facts.instance)
        users = [self.entities.user(facts.user)] if facts.user is not None else []
        if facts.is_tunnel:
            context, headers = tcp_context(facts, labels, read), []
        else:
            context = http_context(facts, canonical_path(facts.target), labels, read, *users)
            headers = [Entity(HEADERS, tags=facts.headers), *users]
        entities = [principal, resource, *headers, labels]
        return Request(
            principal=principal.uid,
            action=CONNECT if facts.is_tunnel else action_of(facts.method),
            resource=resource.uid,
            context=context,
            entities=(*entities, *self._also_named({one.uid for one in entities})),
        )

    def reads(self, request: Request) -> Reads:
        """What the policies that can apply to a request read of it; raises DecisionError."""
        return self.engine.question(request).candidates.reads

    def same_request(self, asked: Request, headers: Mapping[str, str]) -> Request:
        """What another ruling over the same Mesh was asked, as these policies are, with these headers."""
        entities = [Entity(HEADERS, tags=headers) if one.uid == HEADERS else one for one in asked.entities]
        also = self._also_named({one.uid for one in entities})
        return Request(asked.principal, asked.action, asked.resource, asked.context, (*entities, *also))

    def decide(self, request: Request) -> Decision:
        """The engine's answer; raises DecisionError."""
        return self.engine.decide(request)

    def _also_named(self, supplied: set[Uid]) -> Iterator[Entity]:
        """What conditions name besides: of a missing entity Cedar would say no to everything."""
        for uid in self.policy_set.reads.entities:
            entity = None if uid in supplied else self.entities.named(uid)
            if entity is not None:
                yield entity


def make_ruling(
    mesh: Mesh,
    policy_set: PolicySet,
    schema: Schema,
    shadow: PolicySet | None = None,
    before: MeshEntities | None = None,
) -> Ruling:
    """Put a checked policy set in force over a Mesh, and try another one beside it; `before` spares work."""
    entities = MeshEntities(mesh, before)

    def ruling(policies: PolicySet, beside: Ruling | None = None) -> Ruling:
        revision = _revision(schema, policies, entities)
        return Ruling(revision, mesh, policies, schema, Engine(policies, schema), entities, beside)

    return ruling(policy_set, None if shadow is None else ruling(shadow))


def _revision(schema: Schema, policy_set: PolicySet, entities: MeshEntities) -> str:
    """The hash of the content, each part with its length in front; file names and order of policies do not
    count.
    """
    total = hashlib.sha256()
    texts = sorted(policy.text for policy in policy_set.policies)
    for group in ([schema.text], texts, entities.texts()):
        parts = [text.encode() for text in (str(len(group)), *group)]
        total.update(b"".join([piece for part in parts for piece in (len(part).to_bytes(8, "big"), part)]))
    return total.hexdigest()
