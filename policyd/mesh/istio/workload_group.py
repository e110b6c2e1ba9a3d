"""Istio's WorkloadGroup: what machines of one kind have in common, and how each is asked whether it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import model_validator

from policyd.mesh.istio.common import Labels, Networking, Resource
from policyd.mesh.istio.probe import Probe
from policyd.mesh.istio.workload_entry import Place, Weight, check_annotations
from policyd.strict import NOTHING, Model, Name, PortNumber

LATER: Final[Mapping[str, str]] = {
    "address": "it is each machine's own; write it into the WorkloadEntry",
    "network": "every proxy must reach a machine's `address` directly; take it out",
}


class GroupMetadata(Model):
    """Labels by which the group is recognised, and annotations for its machines."""

    labels: Labels = NOTHING
    annotations: Mapping[str, str] = NOTHING


class Template(Model):
    """What a machine has that does not say otherwise itself."""

    ports: Mapping[Name, PortNumber] = NOTHING
    labels: Labels = NOTHING
    service_account: Name | None = None
    locality: Place | None = None
    weight: Weight | None = None


class WorkloadGroupSpec(Model):
    """Whom it is for (by `metadata.labels`, else by the template's), what they have, and how they are asked."""

    metadata: GroupMetadata = GroupMetadata()
    template: Template = Template()
    probe: Probe | None = None

    @model_validator(mode="after")
    def _whom(self) -> WorkloadGroupSpec:
        if not self.selects:
            raise ValueError("it is for no machine; give `metadata.labels`, which its WorkloadEntries have too")
        check_annotations(self.metadata.annotations)
        return self

    @property
    def selects(self) -> Mapping[str, str]:
        """The labels of the machines that it is for."""
        return self.metadata.labels or self.template.labels

    @property
    def gives(self) -> Mapping[str, str]:
        """The labels that they have from it."""
        return {**self.template.labels, **self.metadata.labels}


class WorkloadGroup(Resource):
    """Istio's WorkloadGroup; a machine is of the group if it has its labels and is in its namespace."""

    api_version: Networking = "networking.istio.io/v1"
    kind: Literal["WorkloadGroup"] = "WorkloadGroup"
    spec: WorkloadGroupSpec
