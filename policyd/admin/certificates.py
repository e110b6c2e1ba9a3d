"""The administration API's part about the authority: who may join, what it is, and certificates for the owner.

Law: a token invites an agent to run declared workloads, and its text is never kept, nor logged; a certificate is a
decision of the issuance policies, as for agents.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from policyd._pb import admin_pb2 as pb
from policyd.admin.parts import Parts
from policyd.ca.assignment import Registration
from policyd.ca.desk.answers import length
from policyd.ca.issuance import Evidence
from policyd.ca.tokens import DEFAULT_TTL
from policyd.errors import IssuanceDenied, NotFound, TokenError
from policyd.join_token import JoinToken, format_token
from policyd.spiffe import SpiffeId

MAX_WORKLOADS: Final = 10_000


def invited(request: pb.CreateTokenRequest, parts: Parts) -> pb.CreateTokenReply:
    """A one-use join token for an agent; raises NotFound, TokenError, SpiffeIdError and JournalError."""
    mesh = parts.facts.live.mesh
    if len(request.workloads) > MAX_WORKLOADS:
        raise TokenError(f"a join token names at most {MAX_WORKLOADS} workloads", remedy="name none for all")
    workloads = frozenset(SpiffeId.parse(text) for text in request.workloads)
    for unknown in sorted(workloads - mesh.workloads.keys()):
        raise NotFound(f"`{unknown}` is no workload of this mesh", remedy="declare it in workloads.yaml")
    if not workloads:
        _check_rest_is_free(request.agent, parts)
    ttl = length(request.ttl_seconds) or DEFAULT_TTL
    registration = Registration(request.agent, workloads)
    made = parts.tokens.create(registration, now=parts.issuer.now(), random=parts.random, ttl=ttl)
    parts.note("token.create", {"agent": request.agent, "expires_at": f"{made.expires_at:%FT%TZ}"})
    authority = parts.issuer.authority
    token = JoinToken(
        address=parts.addresses.attestation,
        root_sha256=authority.anchor_sha256,
        agent=request.agent,
        trust_domain=authority.trust_domain,
        secret=made.secret,
    )
    return pb.CreateTokenReply(token=format_token(token), expires_at=int(made.expires_at.timestamp()))


def _check_rest_is_free(agent: str, parts: Parts) -> None:
    """Two agents that run everything would start every sidecar twice, on the same ports."""
    connected = set(parts.facts.agents())
    for other in parts.tokens.agents():
        if not other.workloads and other.agent != agent and other.agent in connected:
            message = f"the agent `{other.agent}` runs all that no other agent's registration names"
            raise TokenError(message, remedy=f"name with --workload what `{agent}` is to run")


def shown(parts: Parts) -> pb.ShowCaReply:
    """The authority's certificates."""
    authority = parts.issuer.authority
    root, intermediate = authority.root, authority.intermediate
    return pb.ShowCaReply(
        trust_domain=authority.trust_domain,
        root_pem=root.public_bytes(Encoding.PEM).decode(),
        intermediate_pem=intermediate.public_bytes(Encoding.PEM).decode(),
        root_sha256=authority.root_sha256,
        root_not_after=int(root.not_valid_after_utc.timestamp()),
        intermediate_not_after=int(intermediate.not_valid_after_utc.timestamp()),
        issued=parts.ledger.total(),
    )


def issued(request: pb.IssueRequest, parts: Parts) -> pb.IssueReply:
    """A certificate for a declared workload, by CSR; raises IdentityError, SpiffeIdError and JournalError."""
    identity = SpiffeId.parse(request.spiffe_id)
    evidence = Evidence("unix", (f"unix:uid:{os.getuid()}",))
    order = parts.issuer.order(identity, None, evidence, ttl=length(request.ttl_seconds))
    if identity not in parts.facts.live.mesh.workloads:
        error = IssuanceDenied(f"`{identity}` is no workload of this mesh", remedy="declare it in workloads.yaml")
        parts.issuer.refuse(order, error)
        raise error
    svid = parts.issuer.issue(order, request.csr, kind="operator")
    return pb.IssueReply(chain=svid.chain, roots=parts.issuer.bundle.roots)
