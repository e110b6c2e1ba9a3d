"""How an Envoy's counts become the mesh's metrics: the short tags it counts by, and the labels that they stand for.

Law: every tag costs each request, so an Envoy counts by one that holds the others (`folded`); who collects them writes
them out under the names and labels that Istio's users know. What is not known is `unknown`, as there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from policyd import names

PEER_HEADER: Final = "x-policyd-peer"  # between sidecars: which instance speaks; its identity is its certificate's
MAX_SERIES: Final = 20_000  # of each kind that one Envoy keeps; beyond it new ones are not counted

# ---- the tags
LOCAL: Final = "local"  # the Party that the Envoy stands beside, and its SPIFFE id
REMOTE: Final = "remote"  # the Party at the other end
REMOTE_ID: Final = "remote_id"  # and its SPIFFE id, as its certificate says
CLUSTER: Final = "cluster"  # where a request was sent; who is asked has no such tag
CODE: Final = "response_code"
FLAGS: Final = "response_flags"
GRPC_STATUS: Final = "grpc_response_status"
SECURITY: Final = "connection_security_policy"  # where it is not mutual TLS
DECISION: Final = "decision"
POLICY: Final = "policy"
RESULT: Final = "result"  # of the Envoy's own filter, where it may decide: who decided has the word
RULE: Final = "rule"  # and which one of it that was
WITHOUT: Final = "without"  # labels that a Telemetry removes, with commas between them
# and two that hold others: of requests that the Envoy's own application gets, and of those that it sends
ASKED: Final = "asked"
ASKS: Final = "asks"
# in this order: what strangers say of themselves comes last, so that whatever it has in it, it is no other one's value
FOLDED: Final = (
    CODE, FLAGS, GRPC_STATUS, SECURITY, RESULT, DECISION, LOCAL, CLUSTER, RULE, POLICY, REMOTE_ID, REMOTE,
)  # fmt: skip
FOLD: Final = "\t"  # between them; no policy's id has one
# whatever else an Envoy counts by is a label of that name, which a Telemetry adds
TAGS: Final = frozenset({*FOLDED, WITHOUT, ASKED, ASKS})

REASON: Final = "reason"  # a label that follows from tags: why a request was refused
FORBIDDEN: Final = "forbidden"  # by the policy that stands beside it
NOT_PERMITTED: Final = "not_permitted"  # by any policy
_NO_MEANING: Final = "path"
_NO_USER: Final = "token"
_NO_DECISION: Final = "broken"
REASONS: Final = (FORBIDDEN, NOT_PERMITTED, _NO_MEANING, _NO_USER, _NO_DECISION)
# of an answer in HTTP's status or gRPC's
_BY_ANSWER: Final[Mapping[str, str]] = {
    "400": _NO_MEANING, "401": _NO_USER, "403": NOT_PERMITTED, "13": _NO_MEANING, "16": _NO_USER, "7": NOT_PERMITTED,
}  # fmt: skip

PROXY: Final = "proxy"  # the label of the instance whose Envoy counted
REPORTER: Final = "reporter"
SOURCE: Final = "source"
DESTINATION: Final = "destination"
UNKNOWN: Final = "unknown"
MUTUAL_TLS: Final = "mutual_tls"
PLAINTEXT: Final = "none"
DOMAIN: Final = "svc.cluster.local"  # of Services' full names
BLACK_HOLE: Final = "BlackHoleCluster"

# What a peer may call itself, anything else is unknown: an Envoy cuts it off, who collects it looks at its letters
MAX_PARTY: Final = 400
_PARTY: Final = re.compile(rf"(?=.{{0,{MAX_PARTY}}}\Z)[A-Za-z0-9._-]*(?:\|[A-Za-z0-9._-]*){{4}}")


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a request, for people: "" is what is not known. `service` is `<name>.<namespace>`."""

    workload: str = ""
    namespace: str = ""
    app: str = ""
    version: str = ""
    service: str = ""

    def __str__(self) -> str:
        """As a tag or a header carries it."""
        return "|".join((self.workload, self.namespace, self.app, self.version, self.service))

    @classmethod
    def parse(cls, text: str) -> Party:
        """Read what `str` made; anything else is a party of which nothing is known."""
        return cls(*text.split("|")) if _PARTY.fullmatch(text) else cls()


def folded(tags: Mapping[str, str]) -> dict[str, str]:
    """The same tags, in one as far as they can be; values may be forms of access logs."""
    held = FOLD.join(tags.get(name, "") for name in FOLDED)
    rest = {name: value for name, value in tags.items() if name not in FOLDED}
    return {ASKS if CLUSTER in tags else ASKED: held, **rest}


def unfolded(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that `folded` took together; where one stands beside, too, it has the word."""
    which = ASKS if ASKS in tags else ASKED
    if which not in tags:
        return dict(tags)
    found = _decided(dict(zip(FOLDED, tags[which].split(FOLD, len(FOLDED) - 1), strict=False)))
    absent = {
        *tags.get(WITHOUT, "").split(","),
        *(() if which == ASKS else (CLUSTER,)),
        *(() if found.get(SECURITY) else (SECURITY,)),
    }
    rest = {name: value for name, value in tags.items() if name != which}
    return {**{name: value for name, value in found.items() if name not in absent}, **rest}


def _decided(found: dict[str, str]) -> dict[str, str]:
    """The tags with what the Envoy's own filter decided, if it did, in policyd's words."""
    result, rule = found.pop(RESULT, ""), found.pop(RULE, "")
    if not result:
        return found
    decision = "allow" if result == names.RBAC_ALLOWED else "error" if rule == names.RULE_INCOMPLETE else "deny"
    return {**found, DECISION: decision, POLICY: "" if rule.startswith(" ") else rule}


def standard_labels(tags: Mapping[str, str]) -> dict[str, str]:
    """Istio's labels, all of them and in its order, from an Envoy's tags; then the decision and its policy."""
    local, _, local_id = tags.get(LOCAL, "").rpartition("|")
    here, there = (Party.parse(local), local_id), (Party.parse(tags.get(REMOTE, "")), tags.get(REMOTE_ID, ""))
    outward = CLUSTER in tags
    source, destination = (here, there) if outward else (there, here)
    service = asked_service(tags.get(CLUSTER, ""), destination[0]) if outward else _full(destination[0].service)
    grpc = tags.get(GRPC_STATUS, "")
    labels = {
        REPORTER: SOURCE if outward else DESTINATION,
        **_ends(SOURCE, *source),
        **_ends(DESTINATION, *destination),
        **_service(service),
        "request_protocol": "grpc" if grpc else "http",
        CODE: tags.get(CODE, ""),
        GRPC_STATUS: grpc,
        FLAGS: tags.get(FLAGS, ""),
        SECURITY: UNKNOWN if outward else tags.get(SECURITY, MUTUAL_TLS),
        DECISION: tags.get(DECISION, ""),
        POLICY: tags.get(POLICY, ""),
        REASON: _reason(tags),
    }
    labels.update((name, value) for name, value in tags.items() if name not in TAGS)
    without = tags.get(WITHOUT, "").split(",")
    without += [REASON] if DECISION in without else []  # which would tell it
    return {
        name: value if value or name in _KEPT_EMPTY else UNKNOWN
        for name, value in labels.items()
        if name not in without
    }


_KEPT_EMPTY: Final = (GRPC_STATUS, DECISION, POLICY, REASON)


_OF_ANSWERS: Final = (CODE, FLAGS, GRPC_STATUS, DECISION, POLICY, REASON)


def _reason(tags: Mapping[str, str]) -> str:
    """Why a request was refused; "" where it was not, "unknown" where the tags that tell are gone."""
    decision = tags.get(DECISION, "")
    if decision == "error":
        return _NO_DECISION
    if decision != "deny":
        return ""
    if tags.get(POLICY):
        return FORBIDDEN
    answer = tags.get(GRPC_STATUS) or tags.get(CODE, "")
    is_told = POLICY in tags or answer not in ("403", "7")
    return _BY_ANSWER.get(answer, UNKNOWN) if is_told else UNKNOWN


def message_labels(local: str, cluster: str = "", *, is_service: bool = False) -> dict[str, str]:
    """The labels of messages that the Envoy of `local` (its tag) passed on to its own application, or to the cluster of
    whom it asks; `is_service` is whether that is of the mesh.
    """
    asked = {CLUSTER: cluster, REMOTE: str(Party(service=cluster.rpartition("|")[2] if is_service else ""))}
    tags = {LOCAL: local, **(asked if cluster else {}), WITHOUT: ",".join(_OF_ANSWERS)}
    return standard_labels({**tags, "request_protocol": "grpc"})


def asked_service(cluster: str, destination: Party) -> str:
    """The full name of what was asked for: the cluster's (`outbound|<port>|<subset>|<service>`), else the peer's."""
    parts = cluster.split("|")
    if len(parts) != 4:
        return _full(destination.service) if cluster else BLACK_HOLE
    return _full(parts[3]) if destination.service else parts[3]


def _full(service: str) -> str:
    return f"{service}.{DOMAIN}" if service else ""


def _ends(side: str, party: Party, spiffe_id: str) -> dict[str, str]:
    return {
        f"{side}_workload": party.workload,
        f"{side}_canonical_service": party.app,
        f"{side}_canonical_revision": party.version,
        f"{side}_workload_namespace": party.namespace,
        f"{side}_principal": spiffe_id,
        f"{side}_app": party.app,
        f"{side}_version": party.version,
        f"{side}_cluster": "",
    }


def _service(full: str) -> dict[str, str]:
    bare = full.removesuffix(f".{DOMAIN}")
    name, _, namespace = bare.rpartition(".") if bare != full else (full, "", "")
    return {
        "destination_service": full,
        "destination_service_name": name,
        "destination_service_namespace": namespace,
    }
