"""ReferenceGrant: who of other namespaces may refer to what is in its own one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field

from policyd.mesh.gateway_api.common import GatewayApiResource, GroupName, KindName, ObjectName
from policyd.strict import Many, Model, Name

LATER: Final[Mapping[str, str]] = {}


class GrantedFrom(Model):
    """Resources of a kind in a namespace."""

    group: GroupName
    kind: KindName
    namespace: Name


class GrantedTo(Model):
    """Things of a kind in the grant's own namespace: all, or one by name."""

    group: GroupName
    kind: KindName
    name: ObjectName | None = None


class ReferenceGrantSpec(Model):
    """Each of those may refer to each of these."""

    from_: Annotated[Many[GrantedFrom], Field(alias="from", min_length=1, max_length=16)]
    to: Annotated[Many[GrantedTo], Field(min_length=1, max_length=16)]


class ReferenceGrant(GatewayApiResource):
    """The Gateway API's ReferenceGrant."""

    api_version: Literal[
        "gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1", "gateway.networking.k8s.io/v1alpha2"
    ] = "gateway.networking.k8s.io/v1beta1"
    kind: Literal["ReferenceGrant"] = "ReferenceGrant"
    spec: ReferenceGrantSpec
