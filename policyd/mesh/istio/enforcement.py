"""policyd's own Enforcement: who decides about requests, policyd or the sidecar itself, for which workloads."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from policyd.mesh.istio.common import Resource, WorkloadSelector
from policyd.strict import Model

LATER: Final = ()

Mode = Literal["central", "local", "auto"]

DEFAULT_SAMPLE: Final = 0.1  # of a hundred


class EnforcementSpec(Model):
    """Who decides at the sidecars of instances (of this namespace; all of them without a selector).

    `central`: policyd is asked about every request. `local`: the sidecar decides by filters that policyd compiles, and
    the folder is refused where a policy cannot be compiled. `auto`: local where that is exact, else central. Records of
    what is decided locally come after the fact, which `durability: async` accepts. Of a hundred local decisions
    `samplePercent` are made by policyd too, and compared.
    """

    selector: WorkloadSelector = WorkloadSelector()
    enforcement: Mode
    durability: Literal["async"] | None = None
    sample_percent: Annotated[float, Field(ge=0, le=100)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> EnforcementSpec:
        if self.enforcement == "central" and (self.durability or self.sample_percent is not None):
            raise ValueError("`durability` and `samplePercent` are for `local` and `auto`; take them out")
        return self


class Enforcement(Resource):
    """policyd's own Enforcement. Without any, every request is decided by policyd (`central`)."""

    api_version: Literal["policyd.io/v1"] = "policyd.io/v1"
    kind: Literal["Enforcement"] = "Enforcement"
    spec: EnforcementSpec
