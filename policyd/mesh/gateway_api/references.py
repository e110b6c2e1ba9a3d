"""What Gateways refer to for TLS: certificates with their keys, and authorities; or why they may or can not be had."""

from __future__ import annotations

from policyd.mesh.credentials import Credentials
from policyd.mesh.gateway_api import held
from policyd.mesh.gateway_api.backends import AUTHORITIES, Grants, Referrer
from policyd.mesh.gateway_api.conditions import Fault
from policyd.mesh.gateway_api.gateway import CertificateRef, ClientAuthoritiesRef, ClientValidation


class References:
    """Looks at what is referred to; where the files are not at hand they are taken to be there."""

    def __init__(self, grants: Grants, credentials: Credentials | None) -> None:
        self._grants = grants
        self._credentials = credentials

    def of_certificate(self, ref: CertificateRef, own: str, reason: str) -> Fault | None:
        """Why a certificate is not to be had by Gateways of a namespace; `reason` is the specification's."""
        if (ref.group, ref.kind) != ("", "Secret"):
            return Fault(reason, f"a `{ref.kind}` is no certificate; name a `Secret`")
        return self._fault(ref, own, held.PAIR, reason)

    def of_authorities(self, wanted: ClientValidation, own: str) -> Fault | None:
        """Why authorities of clients are not to be had."""
        (ref,) = wanted.ca_certificate_refs
        if ref.group or ref.kind not in AUTHORITIES:
            return Fault("InvalidCACertificateKind", f"a `{ref.kind}` holds no authorities; name a `ConfigMap`")
        return self._fault(ref, own, held.AUTHORITIES, "InvalidCACertificateRef")

    def _fault(
        self, ref: CertificateRef | ClientAuthoritiesRef, own: str, files: tuple[str, ...], reason: str
    ) -> Fault | None:
        who = Referrer("Gateway", own)
        if ref.namespace and not self._grants.allow(who, "", ref.kind, ref.namespace, ref.name):
            message = f"no ReferenceGrant of `{ref.namespace}` lets this Gateway refer to the {ref.kind} `{ref.name}`"
            return Fault("RefNotPermitted", message)
        wrong = held.trouble(held.folder_of(ref.name, ref.namespace, own), files, self._credentials)
        return Fault(reason, wrong) if wrong else None
