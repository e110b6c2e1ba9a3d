"""Istio's DestinationRule: the subsets of a host, and how callers treat it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.client_tls import ClientTls
from policyd.mesh.istio.common import HostPattern, Labels, Networking, Resource
from policyd.mesh.istio.traffic_policy import LATER as POLICY_LATER
from policyd.mesh.istio.traffic_policy import TrafficPolicy
from policyd.mesh.matching import check_export, check_subset_name
from policyd.strict import NOTHING, Many, Model
from policyd.yaml import Path

LATER: Final = POLICY_LATER

SubsetName = Annotated[str, AfterValidator(check_subset_name)]


class Subset(Model):
    """The instances of the host that bear the labels; without labels, all."""

    name: SubsetName
    labels: Labels = NOTHING
    traffic_policy: TrafficPolicy | None = None


class WorkloadSelector(Model):
    """The callers for which a rule is, in its own namespace."""

    match_labels: Annotated[Labels, Field(min_length=1)]


class DestinationRuleSpec(Model):
    """What holds for requests to `host`, after they were routed."""

    host: HostPattern
    traffic_policy: TrafficPolicy | None = None
    subsets: Many[Subset] = ()
    export_to: Annotated[Many[Annotated[str, AfterValidator(check_export)]], Field(min_length=1)] = ("*",)
    workload_selector: WorkloadSelector | None = None

    def policies(self) -> Iterator[TrafficPolicy]:
        """Of the whole, and of each subset."""
        every = (self.traffic_policy, *(subset.traffic_policy for subset in self.subsets))
        return (policy for policy in every if policy is not None)

    @model_validator(mode="after")
    def _distinct(self) -> DestinationRuleSpec:
        names = [subset.name for subset in self.subsets]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the subset `{twice}` is there twice; rename one")
        if self.traffic_policy is None and not self.subsets:
            raise ValueError("neither `trafficPolicy` nor `subsets` is given; add one")
        return self


class DestinationRule(Resource):
    """Istio's DestinationRule."""

    api_version: Networking = "networking.istio.io/v1"
    kind: Literal["DestinationRule"] = "DestinationRule"
    spec: DestinationRuleSpec

    @property
    def selects(self) -> Mapping[str, str]:
        """The labels of the callers for which it is; none: of all."""
        return self.spec.workload_selector.match_labels if self.spec.workload_selector else NOTHING

    def client_tls(self) -> Iterator[tuple[Path, ClientTls]]:
        """What it says of TLS, with the places."""
        policies: list[tuple[Path, TrafficPolicy | None]] = [(("spec", "trafficPolicy"), self.spec.traffic_policy)]
        for at, subset in enumerate(self.spec.subsets):
            policies.append((("spec", "subsets", at, "trafficPolicy"), subset.traffic_policy))
        for path, policy in policies:
            if policy is not None and policy.tls is not None:
                yield (*path, "tls"), policy.tls
            for at, port in enumerate(policy.port_level_settings if policy is not None else ()):
                if port.tls is not None:
                    yield (*path, "portLevelSettings", at, "tls"), port.tls

    def holds_for(self, namespace: str) -> bool:
        """Whether callers of a namespace see it."""
        own = namespace == self.namespace
        return any(to == "*" or to == namespace or (to == "." and own) for to in self.spec.export_to)
