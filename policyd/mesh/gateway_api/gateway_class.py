"""GatewayClass: who makes Gateways of a class real."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field

from policyd.mesh.gateway_api.common import GatewayApiResource, Stable
from policyd.strict import Model

CONTROLLER: Final = "policyd.dev/gateway-controller"
BUILT_IN: Final = "policyd"  # the class that need not be declared
LATER: Final[Mapping[str, str]] = {"parametersRef": "a gateway's own options are those of workloads.yaml"}


class GatewayClassSpec(Model):
    """The controller that has the Gateways of the class."""

    controller_name: Annotated[
        str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9/._~%!$&'()*+,;=:-]+$")
    ]
    description: Annotated[str, Field(max_length=64)] | None = None


class GatewayClass(GatewayApiResource):
    """The Gateway API's GatewayClass."""

    api_version: Stable = "gateway.networking.k8s.io/v1"
    kind: Literal["GatewayClass"] = "GatewayClass"
    spec: GatewayClassSpec
