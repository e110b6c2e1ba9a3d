"""Requests as the rooms above make them, for tests of the language."""

from __future__ import annotations

from typing import Any

from policyd.cedar.model import Entity, Request, Uid

PAGE = "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"
PAGE_UID = Uid("Workload", PAGE)


def ip(text: str) -> dict[str, Any]:
    """An address."""
    return {"__extn": {"fn": "ip", "arg": text}}


def ref(uid: Uid) -> dict[str, Any]:
    """A reference to an entity."""
    return {"__entity": uid.json()}


def http_request(
    principal: Uid = PAGE_UID,
    method: str = "GET",
    service: str = "reviews",
    path: str = "/reviews/0",
    headers: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    groups: tuple[str, ...] = (),
    tags: dict[str, str] | None = None,
) -> Request:
    """An HTTP request with every entity that it names."""
    account = {"trust_domain": "cluster.local", "path": PAGE.removeprefix("spiffe://cluster.local")}
    above = (Uid("Namespace", "default"), Uid("TrustDomain", "cluster.local"), *(Uid("Group", one) for one in groups))
    known = principal.type == "Workload"
    return Request(
        principal=principal,
        action=Uid("Action", method),
        resource=Uid("Service", f"{service}.default"),
        context={
            "request": {
                "method": method,
                "host": service,
                "path": path,
                "segments": path.count("/"),
                "headers": ref(Uid("Headers", "request")),
            },
            "source": {"ip": ip("127.0.0.1"), "port": 40000},
            "client_ip": ip("127.0.0.1"),
            "destination": {"ip": ip("127.0.0.1"), "port": 9080, "labels": ref(Uid("Labels", "instance"))},
            "time": {"__extn": {"fn": "datetime", "arg": "2026-11-23T12:00:00.000Z"}},
        },
        entities=(
            Entity(principal, account if known else {}, above if known else (), tags or {}),
            Entity(
                Uid("Service", f"{service}.default"),
                {"name": service, "namespace": "default"},
                (Uid("Namespace", "default"),),
                tags or {},
            ),
            Entity(Uid("Headers", "request"), tags=headers or {}),
            Entity(Uid("Labels", "instance"), tags=labels or {}),
        ),
    )
