"""What a server tells of itself over the administration API: where it listens, what is in force, who decides.

Law: pure; the facts are the server's, here they become the API's messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Final, Protocol

from policyd._pb import admin_pb2 as pb
from policyd.config.addresses import Address
from policyd.errors import Problem
from policyd.mesh.model import Instance
from policyd.reload.live import Live
from policyd.xds.status import ProxyStatus


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the server listens, each as `host:port`; `authz` is that of the first decision process."""

    xds: str
    authz: str
    attestation: str
    http: str


ADDRESSES: Final = tuple(field.name for field in fields(Addresses))


@dataclass(frozen=True, slots=True)
class Counts:
    """Decisions since the start."""

    decisions: int
    denials: int
    errors: int


class DeciderFacts(Protocol):
    """What the server knows of a decision process; policyd.server.decider_life.DeciderLife is one."""

    @property
    def name(self) -> str:
        """`decide-1` and so on."""

    @property
    def address(self) -> Address:
        """Where it answers checks."""

    @property
    def pid(self) -> int:
        """Its process id, 0 where there is none now."""

    @property
    def state(self) -> str:
        """`starting`, `deciding` or `waiting`."""

    @property
    def revision(self) -> str:
        """What it decides under."""

    @property
    def trouble(self) -> str:
        """Why it keeps no records; "" if it does."""

    @property
    def starts(self) -> int:
        """How often it was started."""


class Facts(Protocol):
    """What the server knows of itself."""

    @property
    def live(self) -> Live:
        """What is in force."""

    @property
    def refused(self) -> Iterable[Problem]:
        """Why the folder as it is now is not in force; empty when it is."""

    def not_ready(self) -> str:
        """Why the server is not ready; "" when it is."""

    def counts(self) -> Counts:
        """How many decisions were made."""

    def shadow_counts(self) -> Mapping[str, int]:
        """How many shadow decisions were made, by what would change; see audit.record.Change."""

    def warnings(self) -> Iterable[str]:
        """What works and deserves a look."""

    def proxies(self) -> Iterable[ProxyStatus]:
        """The proxies that are connected."""

    def agents(self) -> Iterable[str]:
        """The agents that are connected, by name."""

    def troubles(self) -> Mapping[str, str]:
        """The instances that are probed and not reached, by name, and why."""

    def deciders(self) -> Iterable[DeciderFacts]:
        """The decision processes."""


def shadow(live: Live, counts: Mapping[str, int]) -> pb.Shadow | None:
    """The policies that are tried beside the active ones, None where there are none."""
    shadow = live.ruling.shadow
    if shadow is None:
        return None
    return pb.Shadow(
        revision=shadow.revision,
        policies=len(shadow.policy_set.policies),
        folder=live.shadow_place,
        agree=counts["agree"],
        would_deny=counts["would_deny"],
        would_allow=counts["would_allow"],
        errors=counts["error"],
        skipped=counts["skipped"],
    )


def refusal(problem: Problem) -> pb.Refusal:
    """Why a folder is not taken."""
    return pb.Refusal(
        code=problem.code, message=problem.message, file=problem.file, line=problem.line, remedy=problem.remedy
    )


def decider(one: DeciderFacts) -> pb.Decider:
    """One decision process."""
    return pb.Decider(
        name=one.name,
        address=str(one.address),
        pid=one.pid,
        state=one.state,
        revision=one.revision,
        trouble=one.trouble,
        starts=one.starts,
    )


def place(instance: Instance, trouble: str) -> pb.InstancePlace:
    """Where an instance is, and how it is reached; `trouble` is why it is not healthy, "" if it is."""
    proxy = f"http://{instance.name}:{instance.proxy_secret}@127.0.0.1:{instance.outbound_port}"
    return pb.InstancePlace(
        name=instance.name,
        spiffe_id=str(instance.workload),
        service=instance.service,
        role=instance.role,
        address=instance.address,
        app_port=instance.ports[0].app_port if instance.ports else 0,
        inbound_port=instance.ports[0].inbound_port if instance.ports else 0,
        outbound_port=instance.outbound_port,
        proxy_url=proxy if instance.outbound_port else "",
        listens=[pb.Listen(declared=one.declared, actual=one.actual) for one in instance.listens],
        ports=[
            pb.PortPlace(
                service_port=one.service_port,
                name=one.name,
                protocol=one.protocol,
                app_port=one.app_port,
                inbound_port=one.inbound_port,
                app_socket=one.app_socket,
            )
            for one in instance.ports
        ],
        health=trouble or ("healthy" if instance.probe is not None else ""),
    )


def proxy(proxy: ProxyStatus, agent: str) -> pb.ProxyStatus:
    """One proxy, declared or connected, and the agent that runs it."""
    return pb.ProxyStatus(
        instance=proxy.instance,
        spiffe_id=proxy.spiffe_id,
        agent=agent,
        connected=proxy.connected,
        envoy_version=proxy.envoy_version,
        connected_at=int(proxy.connected_at),
        types=[
            pb.TypeStatus(
                type=one.type,
                state=one.state,
                rejection=one.rejection,
                changed_at=int(one.changed_at),
                resources=one.resources,
            )
            for one in proxy.types
        ],
    )
