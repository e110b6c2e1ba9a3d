"""The administration API's part about proxies: who is connected and run by whom, what one holds and was sent.

Law: a proxy that is declared is told of, connected or not; of a secret, only which it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import grpc

from policyd._pb import admin_pb2 as pb
from policyd.admin import facts as told
from policyd.admin.parts import Parts
from policyd.ca.assignment import instances_for
from policyd.ca.serving.refusals import Refusal
from policyd.policy.request_form import parse_form
from policyd.policy.resolving import nearest_of, resolve_at
from policyd.xds.inspection.service import KINDS, SHOWN, NotShown
from policyd.xds.snapshot import SHORT_NAMES
from policyd.xds.status import ProxyStatus

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Code = grpc.StatusCode


def instances(parts: Parts) -> pb.InstancesReply:
    """Where each instance is, with the secrets that its application needs."""
    troubles = parts.facts.troubles()
    declared = sorted(parts.facts.live.mesh.instances.items())
    return pb.InstancesReply(instances=[told.place(one, troubles.get(name, "")) for name, one in declared])


def listed(parts: Parts) -> pb.ProxiesReply:
    """Every proxy."""
    known, agents = _known(parts), _agents(parts)
    return pb.ProxiesReply(
        proxies=[
            told.proxy(known.get(name) or ProxyStatus(name, str(instance.workload)), agents.get(name, ""))
            for name, instance in sorted(parts.facts.live.mesh.instances.items())
        ]
    )


async def inspected(request: pb.InspectRequest, parts: Parts) -> pb.InspectReply:
    """What a proxy holds, as its agent shows it, and what it was sent; raises Refusal."""
    instance, kind = request.instance, request.kind
    if kind not in SHOWN:
        what = f"`{kind[:40]}` is no kind; known are {', '.join(SHOWN)}"
        raise Refusal(Code.INVALID_ARGUMENT, what)
    if instance not in parts.facts.live.mesh.instances:
        what = f"no instance is called `{instance[:80]}`; {nearest_of(instance, parts.facts.live.mesh.instances)}"
        raise Refusal(Code.NOT_FOUND, what)
    agent = _agents(parts).get(instance, "")
    if not agent:
        raise Refusal(Code.FAILED_PRECONDITION, f"no agent runs `{instance}`")
    try:
        held = await parts.inspect(agent, instance, kind)
    except NotShown as error:
        raise Refusal(Code.FAILED_PRECONDITION, str(error)) from None
    sent = request.sent and kind in KINDS
    return pb.InspectReply(held=held, sent=list(_sent(instance, kind, parts)) if sent else [])


def decided(request: pb.DecideRequest, parts: Parts) -> pb.DecideReply:
    """What a request that reaches an instance now would be answered, and how far its proxy is.

    Raises InvalidInput, UnacceptablePath, IncompleteRequest and DecisionError.
    """
    ruling, now = parts.facts.live.ruling, parts.issuer.now()
    facts = resolve_at(parse_form(request.request), request.instance, ruling.mesh, now, dict(request.headers))
    decision = ruling.decide(ruling.request(facts))
    proxy = _known(parts).get(request.instance) or ProxyStatus(request.instance)
    return pb.DecideReply(
        revision=ruling.revision,
        decision=decision.word,
        reasons=decision.reasons,
        time_us=(now - EPOCH) // timedelta(microseconds=1),
        proxy=told.proxy(proxy, ""),
    )


def _known(parts: Parts) -> Mapping[str, ProxyStatus]:
    """The proxies that are connected, by instance."""
    return {proxy.instance: proxy for proxy in parts.facts.proxies()}


def _agents(parts: Parts) -> Mapping[str, str]:
    """Which agent runs which instance."""
    mesh, joined = parts.facts.live.mesh, parts.tokens.agents()
    return {one.name: each.agent for each in joined for one in instances_for(each, mesh, joined)}


def _sent(instance: str, kind: str, parts: Parts) -> Iterator[pb.SentResource]:
    snapshot = parts.sent(instance)
    type_url = next(url for url, name in SHORT_NAMES.items() if name == kind)
    for name, one in sorted(snapshot.of(type_url).items()) if snapshot else ():
        yield pb.SentResource(name=name, version=one.version, body=b"" if kind == "secrets" else one.body)
