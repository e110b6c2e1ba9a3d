"""What each field of policyd's own files is for; a field without a meaning, or the reverse, stops the generator.

DestinationRule, Gateway, VirtualService and Service have none: they are Istio's and Kubernetes' own, whose references
explain them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_PLACE: Final = {
    "serviceAccount": "The identity's name; otherwise that of `defaults`.",
    "namespace": "Its namespace; otherwise that of `defaults`.",
    "address": "The address at which others reach it.",
    "locality": "Where it is, `region/zone/subzone`; DestinationRules may prefer what is near.",
}
_CASE: Final = {
    "name": "Shown where it fails.",
    "headers": "The request's headers.",
    "time": "When it happens, for policies that read `context.time`.",
}
MEANINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "WorkloadsFile": {
        "workloads": "The instances that have a sidecar, by name.",
        "gateways": "The Envoys at the edge, by name.",
        "serviceAccounts": "Labels of identities, by `<name>` or `<name>.<namespace>`.",
        "defaults": "What holds where nothing else is said.",
    },
    "WorkloadSpec": {
        "service": "The Service that it serves; one is made for each name.",
        "port": "The Service's port, which callers use.",
        "command": "What `up` starts. Without it someone else starts the application.",
        "health": "A path that answers 200 once the application is ready; without it, its port must open.",
        "labels": "Labels of the instance; `app` is its service unless given.",
        "environment": "Added to the application's environment; wins over what `up` sets.",
        "workdir": "Where `command` runs, relative to the folder.",
        **_PLACE,
        "appPort": "Where the application listens, on loopback of its machine: its PORT.",
        "inboundPort": "Where its sidecar listens for others.",
        "outboundPort": "Its own HTTP proxy, on loopback.",
    },
    "GatewayInstanceSpec": {
        "listen": "The port or ports to open. One that is taken on this machine is replaced by a free one.",
        "labels": "For the `selector` of Gateways; `istio: ingressgateway` unless given.",
        **_PLACE,
    },
    "ServiceAccountSpec": {"labels": "Policies read them as tags of the caller."},
    "Defaults": {
        "namespace": "The namespace of what has none.",
        "serviceAccount": "The identity's name of what has none.",
    },
    "GroupsFile": {"groups": 'The groups, by name: `Group::"<name>"` in policies.'},
    "GroupSpec": {
        "workloads": "Identities.",
        "users": "End users, `<issuer>/<subject>`.",
        "hosts": "Names outside the mesh.",
        "services": "Services.",
        "operators": "Who may operate: `unix:<user id>`.",
        "groups": "Groups whose members are members of this one too.",
    },
    "_CheckSpec": {
        "name": "Shown in the table.",
        "request": "`FROM METHOD URL`.",
        "expect": "The HTTP status.",
        "body": "A text that the answer must contain.",
    },
    "_CaseSpec": {
        **_CASE,
        "request": "`FROM METHOD URL`.",
        "expect": "The decision.",
        "by": "Policies that must be among its reasons.",
    },
    "_TableSpec": {
        **_CASE,
        "table": "Every combination is asked.",
        "allow": "`FROM METHOD` of those that are allowed; every other one must be denied.",
    },
    "_Table": {"who": "Callers.", "may": "Methods.", "url": "What they ask for."},
}
