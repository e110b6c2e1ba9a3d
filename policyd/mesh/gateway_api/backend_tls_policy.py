"""BackendTLSPolicy: gateways open TLS to a backend, and take it for who it is by these names and authorities alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.gateway_api.common import (
    GatewayApiResource,
    GroupName,
    Hostname,
    KindName,
    ObjectName,
    PreciseHostname,
)
from policyd.mesh.matching import check_credential
from policyd.strict import Many, Model

LATER: Final[Mapping[str, str]] = {
    "options": "gateways speak TLS 1.2 and 1.3 to backends; take it out",
}
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[!-~]+")


def _check_absolute_uri(text: str) -> str:
    if not _URI.fullmatch(text):
        raise ValueError(f"`{text[:80]}` is no URI; write it with its scheme, as in `spiffe://example.com/shop`")
    return text


class PolicyTarget(Model):
    """A Service, or a ServiceEntry, of the policy's own namespace; or that one of its ports that has a name."""

    group: GroupName
    kind: KindName
    name: ObjectName
    section_name: ObjectName | None = None


class AuthoritiesRef(Model):
    """Whose certificates are good: the ConfigMap (or Secret) `<name>` is the file `credentials/<name>/ca.crt`."""

    group: GroupName
    kind: KindName
    name: Annotated[str, AfterValidator(check_credential)]


class SubjectAltName(Model):
    """A name that the backend's certificate may have, by its type."""

    type: Literal["Hostname", "URI"]
    hostname: Hostname | None = None
    uri: Annotated[str, Field(max_length=253), AfterValidator(_check_absolute_uri)] | None = None

    @model_validator(mode="after")
    def _one(self) -> SubjectAltName:
        by_host = self.type == "Hostname"
        if (self.hostname is not None) is not by_host or (self.uri is not None) is by_host:
            raise ValueError(f"`{self.type}` needs `{self.type.lower()}`, and nothing else; give it")
        return self

    @property
    def value(self) -> str:
        """Whichever was given."""
        return self.hostname or self.uri or ""


class BackendValidation(Model):
    """By what a backend's certificate is checked: `hostname` is asked for, and is its name unless others are given.

    A name of `subject_alt_names` that begins with `*.` is that of a certificate which has it so.
    """

    ca_certificate_refs: Annotated[Many[AuthoritiesRef], Field(max_length=8)] = ()
    well_known_ca_certificates: Annotated[Literal["System"] | None, Field(alias="wellKnownCACertificates")] = None
    hostname: PreciseHostname
    subject_alt_names: Annotated[Many[SubjectAltName], Field(max_length=5)] = ()

    @model_validator(mode="after")
    def _authorities(self) -> BackendValidation:
        if bool(self.ca_certificate_refs) is (self.well_known_ca_certificates is not None):
            raise ValueError("give either `caCertificateRefs` or `wellKnownCACertificates`")
        if len(self.ca_certificate_refs) > 1:
            raise ValueError("of `caCertificateRefs` one is supported; put all authorities into its `ca.crt`")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Those of which a certificate must have one."""
        return tuple(one.value for one in self.subject_alt_names) or (self.hostname,)


class BackendTlsPolicySpec(Model):
    """To which backends TLS is opened, and how they prove themselves."""

    target_refs: Annotated[Many[PolicyTarget], Field(min_length=1, max_length=16)]
    validation: BackendValidation

    @model_validator(mode="after")
    def _distinct(self) -> BackendTlsPolicySpec:
        seen: dict[tuple[str, str, str], set[str | None]] = {}
        for one in self.target_refs:
            sections = seen.setdefault((one.group, one.kind, one.name), set())
            if one.section_name in sections or (sections and None in {one.section_name, *sections}):
                raise ValueError(f"`{one.name}` is there twice; keep one, or give each its own `sectionName`")
            sections.add(one.section_name)
        return self


class BackendTlsPolicy(GatewayApiResource):
    """The Gateway API's BackendTLSPolicy."""

    api_version: Literal["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha3"] = (
        "gateway.networking.k8s.io/v1"
    )
    kind: Literal["BackendTLSPolicy"] = "BackendTLSPolicy"
    spec: BackendTlsPolicySpec
