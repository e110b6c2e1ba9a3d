"""What agents are told to ask the applications beside their sidecars, and what they say of the answers.

Law: an agent speaks for the instances that it runs; who speaks for another's is not heard at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from policyd._pb import agent_pb2
from policyd.ca.assignment import Registration, instances_for
from policyd.errors import IssuanceDenied
from policyd.mesh.istio.probe import Probe
from policyd.mesh.model import Instance, Mesh
from policyd.mesh.probes import probed_port

MAX_REPORTED: Final = 512  # as many as an agent runs
MAX_REASON: Final = 200  # characters


def probes_for(instances: Iterable[Instance]) -> Iterator[agent_pb2.Probe]:
    """How the instances are asked, those that are."""
    for instance in instances:
        if instance.probe is not None:
            yield _message(instance, instance.probe)


def said_by(
    registration: Registration, report: agent_pb2.HealthReport, mesh: Mesh, agents: Iterable[Registration]
) -> dict[str, tuple[bool, str]]:
    """What a report says of instances that there are; raises IssuanceDenied where one is not this agent's."""
    own = own_of((said.instance for said in report.instances), registration, mesh, agents)
    return {said.instance: (said.healthy, _clean(said.reason)) for said in report.instances if said.instance in own}


def own_of(
    names: Iterable[str], registration: Registration, mesh: Mesh, agents: Iterable[Registration]
) -> frozenset[str]:
    """Those of `names` that there are; raises IssuanceDenied where one is not this agent's."""
    own = {one.name for one in instances_for(registration, mesh, agents)}
    known = frozenset(name for name in names if name in mesh.instances)  # others went while the word came
    for name in sorted(known - own):
        raise IssuanceDenied(f"`{name}` is not run by this agent")
    return known


def _clean(reason: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in reason[:MAX_REASON])


def _message(instance: Instance, probe: Probe) -> agent_pb2.Probe:
    message = agent_pb2.Probe(
        instance=instance.name,
        initial_delay_seconds=probe.initial_delay_seconds,
        timeout_seconds=probe.timeout_seconds,
        period_seconds=probe.period_seconds,
        success_threshold=probe.success_threshold,
        failure_threshold=probe.failure_threshold,
    )
    if (get := probe.http_get) is not None:
        headers = [agent_pb2.Header(name=one.name, value=one.value) for one in get.http_headers]
        way = agent_pb2.HttpGet(
            host=get.host, port=probed_port(instance, get.port), path=get.path, tls=get.scheme == "HTTPS",
            headers=headers,
        )  # fmt: skip
        message.http_get.CopyFrom(way)
    if (tcp := probe.tcp_socket) is not None:
        message.tcp_socket.CopyFrom(agent_pb2.TcpSocket(host=tcp.host, port=probed_port(instance, tcp.port)))
    if probe.exec is not None:
        message.exec.CopyFrom(agent_pb2.Exec(command=probe.exec.command))
    if (grpc := probe.grpc) is not None:
        message.grpc.CopyFrom(agent_pb2.Grpc(port=probed_port(instance, grpc.port), service=grpc.service))
    return message
