"""Checks as Envoy sends them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyd import envoy_api
from policyd.authz.ruling import Ruling, make_ruling
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.mesh.model import Mesh
from policyd.spiffe import SpiffeId

ACCOUNTS = "spiffe://cluster.local/ns/default/sa/bookinfo-"
PAGE, REVIEWS, RATINGS, INGRESS = (
    SpiffeId.parse(ACCOUNTS + name) for name in ("productpage", "reviews", "ratings", "ingress")
)


def ruling_of(mesh: Mesh, schema: Schema, files: Mapping[str, str]) -> Ruling:
    """A ruling of policy texts over a Mesh."""
    return make_ruling(mesh, load_policies(files, schema), schema)


def check_of(**changes: Any) -> Any:
    """The product page asks reviews-v1; `changes` by path, `request__http__method="PUT"`, None takes a part
    out.
    """
    attributes: dict[str, Any] = {
        "source": {"principal": str(PAGE), "address": address("10.0.0.1", 41000)},
        "destination": {"principal": str(REVIEWS), "address": address("10.0.0.2", 15006)},
        "request": {
            "http": {
                "id": "1234",
                "method": "GET",
                "path": "/reviews/0?full=1",
                "host": "Reviews:9080",
                "headers": {":path": "/reviews/0?full=1", "x-request-id": "r-1", "End-User": "jason"},
            }
        },
        "context_extensions": {"policyd.listener": "reviews-v1/inbound"},
    }
    return envoy_api.build("envoy.service.auth.v3.CheckRequest", {"attributes": changed(attributes, changes)})


def changed(fields: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with others, named by paths of which `__` parts the names; None takes one away."""
    for path, value in changes.items():
        *above, last = path.split("__")
        part = fields
        for name in above:
            part = part[name]
        if value is None:
            del part[last]
        else:
            part[last] = value
    return fields


def at_gateway(**changes: Any) -> Any:
    """Somebody asks the ingress in plain HTTP, as Envoy tells it: without principals."""
    defaults: dict[str, Any] = {
        "source__principal": None,
        "destination__principal": None,
        "request__http__path": "/productpage",
        "context_extensions": {"policyd.listener": "ingress/gateway/8080"},
    }
    return check_of(**(defaults | changes))


def address(ip: str, port: int) -> dict[str, Any]:
    """A socket address."""
    return {"socket_address": {"address": ip, "port_value": port}}
