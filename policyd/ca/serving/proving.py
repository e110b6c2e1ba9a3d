"""A workload that no agent stands beside: it shows evidence of what it is, and has its own key certified.

Law: which evidence leads to which identity is said by registration entries, and then policies decide; what does not
convince is on record with its reason, of which the caller hears nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from cryptography import x509

from policyd._pb import agent_pb2
from policyd.ca import kubernetes, possession
from policyd.ca.authority import Svid
from policyd.ca.entries import Entry
from policyd.ca.issuance import Evidence
from policyd.ca.issuer import Issuer
from policyd.ca.kubernetes import Cluster
from policyd.ca.possession import Challenges, Shown
from policyd.errors import CsrError, IdentityError, IssuanceDenied, SpiffeIdError
from policyd.mesh.model import Mesh
from policyd.spiffe import MAX_ID_BYTES, SpiffeId

MAX_TOKEN: Final = 16 * 1024
REFUSED: Final = "the evidence does not lead to this identity"

_log = structlog.get_logger("policyd.ca")


@dataclass(frozen=True, slots=True)
class Evidences:
    """What is believed: tokens of these clusters, and certificates that chain to these roots; none: nothing is."""

    clusters: tuple[Cluster, ...] = ()
    roots: tuple[x509.Certificate, ...] = ()


class Proving:
    """Judges evidence, and has issued what it leads to. Safe for concurrent use; it may wait for a cluster."""

    def __init__(
        self,
        issuer: Issuer,
        *,
        mesh: Callable[[], Mesh],
        entries: Callable[[], Sequence[Entry]],
        evidences: Callable[[], Evidences],
        challenges: Challenges,
    ) -> None:
        self._issuer = issuer
        self._mesh = mesh
        self._entries = entries
        self._evidences = evidences
        self._challenges = challenges

    def challenge(self) -> bytes:
        """What is to be signed with a key that is to be shown to be somebody's."""
        return self._challenges.new(self._issuer.now())

    def judge(self, request: agent_pb2.ProveRequest) -> Evidence | IdentityError:
        """What the evidence says, or why it says nothing; it waits for a cluster where one is asked."""
        try:
            match request.WhichOneof("evidence"):
                case "kubernetes_token":
                    return Evidence(kubernetes.KIND, self._pod(request.kubernetes_token))
                case "possession":
                    return Evidence(possession.KIND, self._machine(request))
            return IdentityError("no evidence was shown")
        except IdentityError as error:
            return error

    def issue(self, request: agent_pb2.ProveRequest, judged: Evidence | IdentityError, source: str) -> Svid:
        """The SVID that was asked for; raises IssuanceDenied, and what issuing raises."""
        if len(request.spiffe_id) > MAX_ID_BYTES:
            raise SpiffeIdError(f"a SPIFFE ID has at most {MAX_ID_BYTES} bytes")
        identity = SpiffeId.parse(request.spiffe_id)
        kind = {"kubernetes_token": kubernetes.KIND, "possession": possession.KIND}.get(
            request.WhichOneof("evidence") or "", ""
        )
        if not kind:
            raise CsrError("no evidence was shown")
        evidence = judged if isinstance(judged, Evidence) else Evidence(kind)
        order = self._issuer.order(identity, None, evidence, source=source)
        why = self._missing(identity, evidence) if isinstance(judged, Evidence) else judged.message
        if why:
            _log.warning("evidence.refused", reason=why, spiffe_id=str(identity), source=source)
            self._issuer.refuse(order, IssuanceDenied(why))
            raise IssuanceDenied(REFUSED)
        return self._issuer.issue(order, request.csr, kind="workload")

    def _missing(self, identity: SpiffeId, evidence: Evidence) -> str:
        """Why this evidence does not make anybody `identity`; "" where it does."""
        if identity not in self._mesh().workloads:
            return f"`{identity}` is no workload of this mesh"
        if not any(
            one.spiffe_id == identity and one.evidence == evidence.kind and one.fits(evidence.selectors)
            for one in self._entries()
        ):
            return f"no entry makes {' and '.join(evidence.selectors)} `{identity}`"
        return ""

    def _pod(self, token: str) -> tuple[str, ...]:
        """What the first cluster says that knows the token, and else why the last one does not."""
        if len(token) > MAX_TOKEN:
            raise IdentityError(f"a token has at most {MAX_TOKEN} characters, this one {len(token)}")
        failure = IdentityError("no cluster is known here", remedy="name it in `ca.evidence` of policyd.yaml")
        for cluster in self._evidences().clusters:
            try:
                return cluster.selectors(token, self._issuer.now())
            except IdentityError as error:
                failure = error
        raise failure

    def _machine(self, request: agent_pb2.ProveRequest) -> tuple[str, ...]:
        roots, said = self._evidences().roots, request.possession
        if not roots:
            raise IdentityError("no roots of machines are known here", remedy="name them in `ca.evidence`")
        shown = Shown(tuple(said.chain), said.challenge, said.signature)
        return possession.selectors(shown, request.csr, roots, self._challenges, self._issuer.now())
