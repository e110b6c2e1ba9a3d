"""A control plane for one agent: Attestation, Agents and an ADS that gives every Envoy one listener, over real TLS."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.envoy_api import CLUSTER, LISTENER, EnvoyApi
from policyd.join_token import JoinToken, encode_secret
from policyd.spiffe import SpiffeId
from policyd.xds import stream
from policyd.xds.snapshot import Snapshot, make_snapshot, resource
from proxy.identity import make_key
from tests.fakes.toy_ca import ToyCa

SECRET = encode_secret(b"s" * 32)
_OPTIONS = (("grpc.http2.min_ping_interval_without_data_ms", 5_000),)


@dataclass
class ControlPlane:
    """Start it, change `sidecars` or `life` and call `announce`; it notes what was asked in `signed` and `nodes`."""

    api: EnvoyApi
    ca: ToyCa = field(default_factory=ToyCa)
    life: timedelta = timedelta(hours=1)
    sidecars: list[agent_pb2.Sidecar] = field(default_factory=list)
    probes: list[agent_pb2.Probe] = field(default_factory=list)
    reports: list[dict[str, tuple[bool, str]]] = field(default_factory=list)
    turns: list[tuple[list[str], list[str]]] = field(default_factory=list)  # who leaves, and who is back
    holdings: list[agent_pb2.Holding] = field(default_factory=list)
    tainted: list[bytes] = field(default_factory=list)
    levels: tuple[str, str] = ("", "")  # of the agent, and of its Envoys
    more_roots: list[bytes] = field(default_factory=list)
    listener_port: int = 0
    application_port: int = 0  # whom the listener asks for what is below /app, WebSocket included
    secrets_used: list[str] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)
    watches: int = 0
    nodes: list[str] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    attestation_port: int = 0
    agents_port: int = 0
    sequence: int = 1
    denied: set[str] = field(default_factory=set)
    present: ToyCa | None = None  # whose certificates it shows, where not its own

    async def start(self) -> None:
        """Serve on two free ports of loopback, or on those of before."""
        self._announced = asyncio.Event()
        key = make_key()
        shown = self.present or self.ca
        chain = shown.sign(key.public_key(), [str(self.server_id)], dns=["policyd"])
        pem = b"".join(map(_pem, (*chain, shown.root.der)))
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._attestation = grpc.aio.server(options=_OPTIONS)
        agent_pb2_grpc.add_AttestationServicer_to_server(_Attestation(self), self._attestation)
        open_to_all = grpc.ssl_server_credentials([(key_pem, pem)])
        self.attestation_port = self._attestation.add_secure_port(f"127.0.0.1:{self.attestation_port}", open_to_all)
        self._agents = grpc.aio.server(options=_OPTIONS)
        agent_pb2_grpc.add_AgentsServicer_to_server(_Agents(self), self._agents)
        self._agents.add_generic_rpc_handlers((_ads(self),))
        mutual = grpc.ssl_server_credentials([(key_pem, pem)], self.ca.root.pem, require_client_auth=True)
        self.agents_port = self._agents.add_secure_port(f"127.0.0.1:{self.agents_port}", mutual)
        await self._attestation.start()
        await self._agents.start()

    async def stop(self) -> None:
        """End at once, as a crash would."""
        await asyncio.gather(self._attestation.stop(None), self._agents.stop(None))

    def announce(self) -> None:
        """Send the assignment again."""
        self._announced.set()
        self._announced = asyncio.Event()

    @property
    def server_id(self) -> SpiffeId:
        """Whom the server certificate names."""
        return SpiffeId.server(self.ca.trust_domain)

    def token(self, agent: str = "a1") -> JoinToken:
        """A token that works once."""
        pin = hashlib.sha256(self.ca.root.der).hexdigest()
        return JoinToken(f"127.0.0.1:{self.attestation_port}", pin, agent, self.ca.trust_domain, SECRET)

    def bundle(self) -> agent_pb2.Bundle:
        """The root, and what is published besides, under the trust domain."""
        roots = [self.ca.root.der, *self.more_roots]
        return agent_pb2.Bundle(trust_domain=self.ca.trust_domain, roots=roots, sequence=self.sequence)

    def assignment(self) -> agent_pb2.Assignment:
        """What the agent is to run."""
        return agent_pb2.Assignment(
            agent="a1",
            sidecars=self.sidecars,
            probes=self.probes,
            bundle=self.bundle(),
            xds_address=f"127.0.0.1:{self.agents_port}",
            server_id=str(self.server_id),
            tainted=self.tainted,
            log_level=self.levels[0],
            envoy_log_level=self.levels[1],
        )

    def certify(self, spiffe_id: str, csr: bytes) -> agent_pb2.Svid:
        """Sign the key of `csr` for `spiffe_id`."""
        request = x509.load_der_x509_csr(csr)
        chain = self.ca.sign(request.public_key(), [spiffe_id], life=self.life)  # type: ignore[arg-type]
        return agent_pb2.Svid(spiffe_id=spiffe_id, chain=chain, bundle=self.bundle())


class _Attestation(agent_pb2_grpc.AttestationServicer):
    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def Attest(self, request: agent_pb2.AttestRequest, context: grpc.aio.ServicerContext) -> agent_pb2.Svid:  # type: ignore[override] # noqa: N802
        plane = self._plane
        if request.token != SECRET or request.token in plane.secrets_used:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the join token is not valid")
        plane.secrets_used.append(request.token)
        svid = plane.certify(str(SpiffeId.agent(plane.ca.trust_domain, "a1")), request.csr)
        svid.agents_address = f"127.0.0.1:{plane.agents_port}"
        return svid


class _Agents(agent_pb2_grpc.AgentsServicer):
    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def Watch(  # type: ignore[override] # noqa: N802
        self, request: agent_pb2.WatchRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[agent_pb2.Assignment]:
        self._plane.watches += 1
        auth = context.auth_context()
        assert auth["ssl_tls_version"] == [b"TLSv1.3"], auth
        self._plane.peers.append(auth["peer_spiffe_id"][0].decode())
        while True:
            announced = self._plane._announced
            yield self._plane.assignment()
            await announced.wait()

    async def Report(  # type: ignore[override] # noqa: N802
        self, request: agent_pb2.HealthReport, context: grpc.aio.ServicerContext
    ) -> agent_pb2.HealthReply:
        self._plane.reports.append({one.instance: (one.healthy, one.reason) for one in request.instances})
        return agent_pb2.HealthReply()

    async def Leave(  # type: ignore[override] # noqa: N802
        self, request: agent_pb2.Leaving, context: grpc.aio.ServicerContext
    ) -> agent_pb2.LeavingReply:
        self._plane.turns.append((list(request.leaving), list(request.back)))
        return agent_pb2.LeavingReply()

    async def Hold(  # type: ignore[override] # noqa: N802
        self, request: agent_pb2.Holding, context: grpc.aio.ServicerContext
    ) -> agent_pb2.HoldingReply:
        self._plane.holdings.append(request)
        return agent_pb2.HoldingReply()

    async def Sign(self, request: agent_pb2.SignRequest, context: grpc.aio.ServicerContext) -> agent_pb2.Svid:  # type: ignore[override] # noqa: N802
        if request.spiffe_id in self._plane.denied:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not registered")
        self._plane.signed.append(request.spiffe_id)
        return self._plane.certify(request.spiffe_id, request.csr)

    async def SignAll(self, request: agent_pb2.SignAllRequest, _: grpc.aio.ServicerContext) -> agent_pb2.SignAllReply:  # type: ignore[override] # noqa: N802
        return agent_pb2.SignAllReply(signed=map(self._outcome, request.requests))

    def _outcome(self, request: agent_pb2.SignRequest) -> agent_pb2.Signed:
        if request.spiffe_id in self._plane.denied:
            status, _ = grpc.StatusCode.PERMISSION_DENIED.value
            return agent_pb2.Signed(refused=agent_pb2.Refused(status=status, text="not registered"))
        self._plane.signed.append(request.spiffe_id)
        return agent_pb2.Signed(svid=self._plane.certify(request.spiffe_id, request.csr))


def _ads(plane: ControlPlane) -> grpc.GenericRpcHandler:
    kind: Any = plane.api.message("envoy.service.discovery.v3.DeltaDiscoveryRequest")
    answer: Any = plane.api.message("envoy.service.discovery.v3.DeltaDiscoveryResponse")

    async def serve(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        state, node = stream.start(), ""
        async for message in requests:
            if message.node.id:
                node = message.node.id
                plane.nodes.append(node)
                plane.peers.append(context.auth_context()["peer_spiffe_id"][0].decode())
            heard = stream.Request(
                message.type_url,
                tuple(message.resource_names_subscribe),
                tuple(message.resource_names_unsubscribe),
                dict(message.initial_resource_versions),
                message.response_nonce,
                message.error_detail.message if message.HasField("error_detail") else None,
            )
            assert heard.error is None, heard.error
            state, pushes = stream.receive(state, heard, _configuration(plane))
            for push in pushes:
                response = answer(
                    type_url=push.type_url, nonce=push.nonce, removed_resources=push.removed,
                    system_version_info=push.version,
                )  # fmt: skip
                for each in push.resources:
                    carried = response.resources.add(name=each.name, version=each.version)
                    carried.resource.type_url, carried.resource.value = each.type_url, each.body
                yield response

    handler = grpc.stream_stream_rpc_method_handler(serve, kind.FromString, answer.SerializeToString)
    name = "envoy.service.discovery.v3.AggregatedDiscoveryService"
    return grpc.method_handlers_generic_handler(name, {"DeltaAggregatedResources": handler})


def _configuration(plane: ControlPlane) -> Snapshot:
    """One cluster, and one mTLS listener that answers by itself where `listener_port` is set."""
    cluster = {"name": "nowhere", "type": "STATIC", "connect_timeout": "1s"}
    made = [resource(CLUSTER, "nowhere", cluster, api=plane.api)]
    if plane.application_port:
        made.append(resource(CLUSTER, "app", _application(plane.application_port), api=plane.api))
    if plane.listener_port:
        led = bool(plane.application_port)
        made.append(resource(LISTENER, "in", _listener(plane.listener_port, led=led), api=plane.api))
    return make_snapshot(made)


def _application(port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {"name": "app", "type": "STATIC", "load_assignment": {"cluster_name": "app", "endpoints": endpoints}}


def _listener(port: int, *, led: bool) -> dict[str, Any]:
    types = "type.googleapis.com/envoy.extensions"
    manager = f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager"
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "hello"}}}
    to_application = {
        "match": {"prefix": "/app"},
        "route": {"cluster": "app", "timeout": "0s", "upgrade_configs": [{"upgrade_type": "websocket"}]},
    }
    routes = [to_application, answer] if led else [answer]
    router = {"name": "router", "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"}}
    http = {
        "@type": manager,
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [router],
    }
    source = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "policyd-sds"}}],
    }
    sds = {"resource_api_version": "V3", "api_config_source": source}
    tls = {
        "@type": f"{types}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": sds}],
            "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": sds},
        },
    }
    chain = {
        "filters": [{"name": "http", "typed_config": http}],
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": "in", "address": address, "filter_chains": [chain]}


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
