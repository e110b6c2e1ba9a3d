"""The certificate authority: its keys, what it is under, whom it knows and what workloads may show of themselves.

Law: settings that exclude each other, or need each other, are refused together with the way out.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from annotated_types import MaxLen
from pydantic import AfterValidator, Field, model_validator

from policyd.config.addresses import Listen
from policyd.config.urls import MAX_URL, BundleEndpointUrl, TokenIssuer, TrustedUrl
from policyd.errors import SpiffeIdError
from policyd.spiffe import SpiffeId, check_trust_domain
from policyd.strict import Duration, Many, Model

MIN_CERTIFICATE_SECONDS: Final = 5.0
MAX_CERTIFICATE_SECONDS: Final = 86_400.0
MAX_COME_BACK_SECONDS: Final = 30 * 86_400


def _check_trust_domain(name: str) -> str:
    try:
        return check_trust_domain(name)
    except SpiffeIdError as error:
        raise ValueError(str(error)) from None


def _check_spiffe_id(text: str) -> str:
    try:
        return str(SpiffeId.parse(text))
    except SpiffeIdError as error:
        raise ValueError(str(error)) from None


TrustDomain = Annotated[str, AfterValidator(_check_trust_domain)]


class FederatedSettings(Model):
    """A trust domain whose workloads are known here. Its bundle is fetched from `bundle_endpoint`, which proves itself
    to be `endpoint_id` by that very bundle (`https_spiffe`) or by its name (`https_web`); without one it is imported.
    """

    trust_domain: TrustDomain
    bundle_endpoint: BundleEndpointUrl | None = None
    profile: Literal["https_spiffe", "https_web"] = "https_spiffe"
    endpoint_id: Annotated[str, AfterValidator(_check_spiffe_id)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> FederatedSettings:
        proves = self.bundle_endpoint is not None and self.profile == "https_spiffe"
        if proves and self.endpoint_id is None:
            raise ValueError("an endpoint of `https_spiffe` needs its `endpointId`, or write `profile: https_web`")
        if not proves and self.endpoint_id is not None:
            raise ValueError("`endpointId` is for a `bundleEndpoint` of `https_spiffe`; remove it")
        if self.endpoint_id is not None and SpiffeId.parse(self.endpoint_id).trust_domain != self.trust_domain:
            raise ValueError(
                f"`endpointId` is not of `{self.trust_domain}`, by whose bundle it would have to prove itself"
            )
        return self


class BundleEndpointSettings(Model):
    """Where other trust domains fetch this one's bundle: with policyd's own SVID, or with a certificate from files."""

    listen: Listen
    certificate_file: Annotated[str, Field(min_length=1)] | None = None  # relative to the folder
    key_file: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _both(self) -> BundleEndpointSettings:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("`certificateFile` and `keyFile` go together; add the other one")
        return self


class UpstreamSettings(Model):
    """Another authority that ours is under: the file with our certificate, what signed it and the root, and the file of
    our key, or the program or the service that signs with it. Files are relative to the mesh's folder.
    """

    chain_file: Annotated[str, Field(min_length=1)]
    key_file: Annotated[str, Field(min_length=1)] | None = None
    sign_command: Annotated[Many[Annotated[str, Field(min_length=1)]], MaxLen(64)] = ()
    sign_url: TrustedUrl | None = None
    sign_token_file: Annotated[str, Field(min_length=1)] | None = None
    sign_ca_file: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_key(self) -> UpstreamSettings:
        if sum(map(bool, (self.key_file, self.sign_command, self.sign_url))) != 1:
            raise ValueError("give one of `keyFile`, `signCommand` and `signUrl`")
        if (self.sign_token_file or self.sign_ca_file) and not self.sign_url:
            raise ValueError("`signTokenFile` and `signCaFile` belong to `signUrl`; add it, or take them away")
        return self


class ClusterSettings(Model):
    """A Kubernetes cluster whose pods show a projected service-account token for `audience`: who vouches for it, by its
    keys or by a review. Files are relative to the mesh's folder.
    """

    audience: Annotated[str, Field(min_length=1, max_length=255)] = "policyd"
    issuer: Annotated[str, Field(min_length=1, max_length=MAX_URL)] | None = None
    keys_file: Annotated[str, Field(min_length=1)] | None = None
    keys_url: TrustedUrl | None = None
    review_url: TrustedUrl | None = None
    token_file: Annotated[str, Field(min_length=1)] | None = None
    ca_file: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> ClusterSettings:
        if sum(map(bool, (self.keys_file, self.keys_url, self.review_url))) != 1:
            raise ValueError("give one of `keysFile`, `keysUrl` and `reviewUrl`")
        if (self.issuer is None) is not bool(self.review_url):
            raise ValueError("`issuer` belongs to `keysFile` and `keysUrl`; a review knows it")
        if self.keys_file and (self.token_file or self.ca_file):
            raise ValueError("`tokenFile` and `caFile` belong to a URL; take them away")
        return self


class EvidenceSettings(Model):
    """What workloads without an agent may show of themselves: a pod's token, or an existing certificate of a machine
    that chains to the roots of a file.
    """

    kubernetes: Annotated[Many[ClusterSettings], MaxLen(16)] = ()
    machine_roots_file: Annotated[str, Field(min_length=1)] | None = None  # relative to the folder


class CaSettings(Model):
    """The authority: `ttl` of workloads' certificates in seconds, and the file with the keys' passphrase, or the
    program that tells it; other trust domains that are known, and where this one's bundle is published; another
    authority that it is under. With `revoke_serials` proxies look at lists of revoked certificates; workloads of other
    trust domains then name theirs as the server's name (SNI).
    """

    ttl: Annotated[Duration, Field(ge=MIN_CERTIFICATE_SECONDS, le=MAX_CERTIFICATE_SECONDS)] = 3600.0
    passphrase_file: Annotated[str, Field(min_length=1)] | None = None  # relative to the folder
    passphrase_command: Annotated[Many[Annotated[str, Field(min_length=1)]], MaxLen(64)] = ()
    federation: Annotated[Many[FederatedSettings], MaxLen(64)] = ()
    bundle_endpoint: BundleEndpointSettings | None = None
    token_issuer: TokenIssuer | None = None
    upstream: UpstreamSettings | None = None
    evidence: EvidenceSettings = EvidenceSettings()
    revoke_serials: bool = False  # whether proxies look at lists of revoked certificates
    come_back_within: Annotated[Duration, Field(ge=0, le=MAX_COME_BACK_SECONDS)] = 86_400.0

    @model_validator(mode="after")
    def _one_passphrase(self) -> CaSettings:
        if self.passphrase_file and self.passphrase_command:
            raise ValueError("give either `passphraseFile` or `passphraseCommand`")
        return self

    @model_validator(mode="after")
    def _once(self) -> CaSettings:
        names = [one.trust_domain for one in self.federation]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"`{twice[0]}` stands twice under `federation`; name each trust domain once")
        return self
