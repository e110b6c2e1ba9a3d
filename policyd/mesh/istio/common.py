"""What resources of every kind share: metadata, names, labels, headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator

from policyd.mesh.matching import (
    check_authority,
    check_distinct_headers,
    check_export,
    check_header_name,
    check_header_value,
    check_host_pattern,
    check_labels,
    check_path,
)
from policyd.strict import NOTHING, Many, Model, Name

ROOT_NAMESPACE: Final = "istio-system"  # what is declared there holds for all namespaces

Networking = Literal["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"]
Section = Literal["http", "tcp", "tls"]  # rules of requests, of connections, and of TLS that is passed on
Security = Literal["security.istio.io/v1", "security.istio.io/v1beta1"]

Authority = Annotated[str, AfterValidator(check_authority)]
HostPattern = Annotated[str, AfterValidator(check_host_pattern)]
HeaderName = Annotated[str, AfterValidator(check_header_name)]
HeaderValue = Annotated[str, AfterValidator(check_header_value)]
Distinct = BeforeValidator(check_distinct_headers)
Labels = Annotated[Mapping[str, str], AfterValidator(check_labels)]
Path = Annotated[str, AfterValidator(check_path)]
ExportTo = Many[Annotated[str, AfterValidator(check_export)]]  # none: every namespace


class WorkloadSelector(Model):
    """The instances that bear every one of these labels."""

    match_labels: Labels = NOTHING


class Metadata(Model):
    """Names a resource; without a namespace the folder's default one holds."""

    name: Name
    namespace: Name | None = None
    labels: Labels = NOTHING
    annotations: Mapping[str, str] = NOTHING


class Resource(Model):
    """What every resource has: its metadata."""

    metadata: Metadata

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.metadata.name

    @property
    def kind_key(self) -> str:
        """The kind, as it is told from others of its name."""
        return str(getattr(self, "kind", ""))

    @property
    def namespace(self) -> str:
        """`metadata.namespace`; in a Mesh every resource has one."""
        return self.metadata.namespace or ""

    @property
    def id(self) -> str:
        """`<namespace>/<name>`, as `gateways` of a VirtualService refer to it."""
        return f"{self.namespace}/{self.name}"

    def within(self, namespace: str) -> Any:
        """Return the resource with its namespace filled in."""
        if self.metadata.namespace is not None:
            return self
        return self.model_copy(update={"metadata": self.metadata.model_copy(update={"namespace": namespace})})


def export_rank(to: tuple[str, ...], own: str, namespace: str) -> int | None:
    """Return how near a resource of the namespace `own` is to those of `namespace`; None where it is not seen.

    0: kept to its own namespace, 1: given to this one by name, 2: given to all.
    """
    if "." in to and namespace == own:
        return 0
    if namespace in to:
        return 1
    return 2 if not to or "*" in to else None
