"""Istio's PeerAuthentication: whether callers have to show a certificate of the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, model_validator

from policyd.mesh.istio.common import Resource, Security, WorkloadSelector
from policyd.strict import NOTHING, Model

LATER: Final = ()


def check_port_key(text: str) -> str:
    """Return a port as a key of a mapping has it."""
    if not (text.isascii() and text.isdigit() and not text.startswith("0") and int(text[:6]) <= 65535):
        raise ValueError(f"`{text[:80]}` is no port; write the workload's own, as in `8080`")
    return text


class MutualTls(Model):
    """STRICT: only mutual TLS. PERMISSIVE: plain text too. DISABLE: only plain text. UNSET: as the level above says."""

    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] = "UNSET"


class PeerAuthenticationSpec(Model):
    """What holds for instances (of this namespace; all of them without a selector), and for single ports of theirs."""

    selector: WorkloadSelector = WorkloadSelector()
    mtls: MutualTls = MutualTls()
    port_level_mtls: Mapping[Annotated[str, AfterValidator(check_port_key)], MutualTls] = NOTHING

    @model_validator(mode="after")
    def _selects(self) -> PeerAuthenticationSpec:
        if self.port_level_mtls and not self.selector.match_labels:
            raise ValueError("`portLevelMtls` is of the workloads that a `selector` names; add it")
        return self


class PeerAuthentication(Resource):
    """Istio's PeerAuthentication. Without any, every sidecar is STRICT here (Istio's own default is PERMISSIVE)."""

    api_version: Security = "security.istio.io/v1"
    kind: Literal["PeerAuthentication"] = "PeerAuthentication"
    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()
