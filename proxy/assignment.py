"""What an agent is told to run: messages of proto/policyd/v1/agent.proto become our values, checked and bounded.

Law: this is the only place where they do; what is wrong with a part refuses the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Final

from policyd._pb import agent_pb2
from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId, check_trust_domain
from proxy.application_page import PagePlace
from proxy.bootstrap import Endpoint
from proxy.dns.zone import Zone, zone
from proxy.health import Exec, Grpc, HttpGet, Probe, TcpSocket, Way
from proxy.identity import Bundle, check_bundle, check_crls
from proxy.speech import AS_STARTED, Wanted, wanted

MAX_SIDECARS: Final = 512
MAX_PERIOD: Final = 3600.0  # seconds
MAX_REGISTRATIONS: Final = 4096
MAX_FEDERATED: Final = 64
MAX_TAINTED: Final = 64
LOOPBACK: Final = "127.0.0.1"
_PATH: Final = re.compile(r"/[\x21-\x7e]{0,1023}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


@dataclass(frozen=True, slots=True, order=True)
class Spec:
    """One Envoy to run; `proxyless`: none, as its application speaks xDS by itself."""

    instance: str
    spiffe_id: SpiffeId
    cluster: str
    proxyless: bool = False


@dataclass(frozen=True, slots=True)
class Registered:
    """Processes of this machine that have all of `selectors` are `spiffe_id`."""

    spiffe_id: SpiffeId
    selectors: frozenset[str]
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Assigned:
    """What this agent runs, where its Envoys are configured, how applications are asked, which processes it knows."""

    sidecars: tuple[Spec, ...]
    bundle: Bundle
    xds: Endpoint
    server: SpiffeId
    probes: tuple[Probe, ...] = ()
    registered: tuple[Registered, ...] = ()
    federated: tuple[Bundle, ...] = ()
    tainted: frozenset[bytes] = frozenset()
    pages: tuple[PagePlace, ...] = ()
    crls: tuple[bytes, ...] = ()
    signing: Endpoint | None = None
    levels: Wanted = AS_STARTED
    captured: Zone | None = None


def bundle_of(message: agent_pb2.Bundle, trust_domain: str) -> Bundle:
    """The bundle of `message`; raises IdentityError unless it is one of `trust_domain`."""
    bundle = Bundle(message.trust_domain, tuple(message.roots), message.sequence, message.jwt_keys)
    return check_bundle(bundle, trust_domain)


def assigned_of(message: agent_pb2.Assignment, trust_domain: str) -> Assigned:
    """The assignment of `message`; raises PolicydError when any part of it is wrong."""
    if len(message.sidecars) > MAX_SIDECARS:
        raise IdentityError(f"an agent runs at most {MAX_SIDECARS} Envoys, not {len(message.sidecars)}")
    specs = tuple(sorted(_spec_of(sidecar, trust_domain) for sidecar in message.sidecars))
    if len({spec.instance for spec in specs}) != len(specs):
        raise IdentityError("an instance is assigned twice")
    server = SpiffeId.parse(message.server_id)
    if server.trust_domain != trust_domain:
        raise IdentityError(f"the server `{server}` is not of trust domain `{trust_domain}`")
    if len(message.registrations) > MAX_REGISTRATIONS:
        raise IdentityError(f"an agent is told at most {MAX_REGISTRATIONS} entries, not {len(message.registrations)}")
    registered = tuple(_registered(one, trust_domain) for one in message.registrations)
    probes = tuple(_probes_of(message.probes, {spec.instance for spec in specs}))
    pages = tuple(_pages(message.pages, {spec.instance for spec in specs}))
    bundle, xds = bundle_of(message.bundle, trust_domain), Endpoint.parse(message.xds_address)
    federated = tuple(_federated(message.federated, trust_domain))
    if len(message.tainted) > MAX_TAINTED:
        raise IdentityError(f"an agent is told at most {MAX_TAINTED} tainted authorities, not {len(message.tainted)}")
    tainted, crls = frozenset(message.tainted), check_crls(message.crls)
    signing = Endpoint.parse(message.signing_address) if message.signing_address else None
    levels = wanted(message.log_level, message.envoy_log_level)
    captured = captured_of(message.captured, {spec.instance for spec in specs})
    return Assigned(
        specs, bundle, xds, server, probes, registered, federated, tainted, pages, crls, signing, levels, captured
    )


def captured_of(messages: Sequence[agent_pb2.Captured], instances: Set[str]) -> Zone | None:
    """The names of the one instance that is captured here, None where none is; raises IdentityError."""
    if len(messages) > 1:
        raise IdentityError("of an agent's instances one is captured at most, as nothing tells their connections apart")
    for one in messages:
        if one.instance not in instances:
            raise IdentityError(f"`{one.instance[:100]}`, which is to be captured, does not run here")
        names = [(name.name, name.service, tuple(name.addresses)) for name in one.names]
        return zone(one.instance, one.namespace, one.suffixes, names)
    return None


def _federated(messages: Sequence[agent_pb2.Bundle], own: str) -> Iterator[Bundle]:
    """The bundles of other trust domains; one without roots vouches for nobody, and is left out."""
    if len(messages) > MAX_FEDERATED:
        raise IdentityError(f"an agent is told of at most {MAX_FEDERATED} other trust domains, not {len(messages)}")
    names = [message.trust_domain for message in messages]
    if own in names or len(set(names)) != len(names):
        raise IdentityError("bundles of other trust domains are one of each, and none of our own")
    for message in messages:
        if message.roots:
            yield bundle_of(message, check_trust_domain(message.trust_domain))


def _registered(message: agent_pb2.Registration, trust_domain: str) -> Registered:
    spiffe_id = SpiffeId.parse(message.spiffe_id)
    if spiffe_id.trust_domain != trust_domain:
        raise IdentityError(f"`{spiffe_id}` is not of trust domain `{trust_domain}`")
    if not message.selectors or not all(message.selectors):
        raise IdentityError(f"an entry makes every process `{spiffe_id}`")
    return Registered(spiffe_id, frozenset(message.selectors), message.hint)


def _spec_of(message: agent_pb2.Sidecar, trust_domain: str) -> Spec:
    for name in (message.instance, message.cluster):
        if not _NAME.fullmatch(name):
            raise IdentityError(f"`{name[:100]}` is no name of an instance or a service")
    spiffe_id = SpiffeId.parse(message.spiffe_id)
    if spiffe_id.trust_domain != trust_domain:
        raise IdentityError(f"`{spiffe_id}` is not of trust domain `{trust_domain}`")
    return Spec(message.instance, spiffe_id, message.cluster, message.proxyless)


def _probes_of(messages: Iterable[agent_pb2.Probe], instances: Set[str]) -> Iterator[Probe]:
    """How applications are asked, within bounds whatever was said: an agent's time and sockets are its own.

    A way to ask that this agent does not know is passed over, and policyd never hears that the application answers.
    """
    for message in messages:
        way = _way_of(message)
        if way is None or message.instance not in instances:
            continue
        yield Probe(
            instance=message.instance,
            way=way,
            initial_delay=min(message.initial_delay_seconds, MAX_PERIOD),
            timeout=min(max(message.timeout_seconds, 1), MAX_PERIOD),
            period=min(max(message.period_seconds, 1), MAX_PERIOD),
            success_threshold=max(message.success_threshold, 1),
            failure_threshold=max(message.failure_threshold, 1),
        )


def _pages(messages: Iterable[agent_pb2.Page], instances: Set[str]) -> Iterator[PagePlace]:
    """Where applications show their metrics, one page an instance, on this machine only."""
    found: set[str] = set()
    for one in messages:
        is_path = _PATH.fullmatch(one.path) is not None
        if one.instance in instances - found and one.host == LOOPBACK and 0 < one.port < 65536 and is_path:
            found.add(one.instance)
            yield PagePlace(one.instance, one.host, one.port, one.path)


def _way_of(message: agent_pb2.Probe) -> Way | None:
    match message.WhichOneof("way"):
        case "http_get":
            get = message.http_get
            headers = tuple((one.name, one.value) for one in get.headers)
            if any(not text.isprintable() for text in (get.path, *(text for pair in headers for text in pair))):
                raise IdentityError(f"the probe of `{message.instance[:100]}` is no request")
            return HttpGet(get.host, get.port, get.path, get.tls, headers)
        case "tcp_socket":
            return TcpSocket(message.tcp_socket.host, message.tcp_socket.port)
        case "exec":
            return Exec(tuple(message.exec.command))
        case "grpc":
            return Grpc(message.grpc.port, message.grpc.service)
    return None
