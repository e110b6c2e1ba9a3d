"""Secrets for any Envoy that knows the socket alone: the names, who gets which, and a real Envoy that uses them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policyd.envoy_api import SECRET, TYPE_PREFIX, shared
from policyd.errors import IssuanceDenied
from proxy.assignment import Registered
from proxy.control import Unreachable
from proxy.identity import Bundle
from proxy.workload_sds import SERVICE
from tests.fakes.toy_ca import ToyCa
from tests.ports import free_port
from tests.proxy.test_workload_api import API, MINE, PATIENCE, WEB, Code, Machine, running
from tests.xds.envoy_process import EnvoyProcess, eventually

PARTNER = ToyCa("partner.org")
FEDERATED = Bundle("partner.org", (PARTNER.root.der,), 1)
VALIDATOR = TYPE_PREFIX + "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    async with running() as made:
        made.book.hear([Registered(WEB, MINE), Registered(API, MINE)], made.control.bundle, [FEDERATED])
        yield made


def message(name: str) -> Any:
    return shared().message(f"envoy.service.discovery.v3.{name}")


class Stream:
    """What an Envoy says and hears; `kind` is "" for the state of the world, or "Delta"."""

    def __init__(self, machine: Machine, kind: str = "") -> None:
        assert machine.channel is not None
        self.kind = kind
        self.request = message(f"{kind}DiscoveryRequest")
        call = machine.channel.stream_stream(
            f"/{SERVICE}/{'Delta' if kind else 'Stream'}Secrets",
            request_serializer=self.request.SerializeToString,
            response_deserializer=message(f"{kind}DiscoveryResponse").FromString,
        )
        self.call: Any = call()

    async def ask(self, names: Sequence[str], **more: Any) -> None:
        field = "resource_names_subscribe" if self.kind else "resource_names"
        with suppress(grpc.aio.AioRpcError):  # a call that was refused already ends at the next read
            await self.call.write(self.request(type_url=SECRET, **{field: names}, **more))

    async def hear(self) -> Any:
        return await asyncio.wait_for(self.call.read(), PATIENCE)

    async def secrets(self) -> dict[str, Any]:
        """The next response, read."""
        response = await self.hear()
        secret = shared().message("envoy.extensions.transport_sockets.tls.v3.Secret")
        bodies = [one.resource.value if self.kind else one.value for one in response.resources]
        return {one.name: one for one in map(secret.FromString, bodies)}

    async def ends(self) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.hear()
        return caught.value.code(), caught.value.details() or ""


def who(secret: Any) -> str:
    """Whose certificate a secret has; its key has to be the one."""
    chain = x509.load_pem_x509_certificates(secret.tls_certificate.certificate_chain.inline_string.encode())
    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(names.get_values_for_type(x509.UniformResourceIdentifier)[0])


def trusted(secret: Any) -> list[str]:
    """The trust domains that a secret verifies."""
    config = secret.validation_context.custom_validator_config.typed_config
    assert config.type_url == VALIDATOR
    validator = shared().message(VALIDATOR.removeprefix(TYPE_PREFIX)).FromString(config.value)
    return [one.name for one in validator.trust_domains]


@pytest.mark.parametrize("kind", ["", "Delta"])
async def test_the_names_of_spire_and_istio_are_known(machine: Machine, kind: str) -> None:
    stream = Stream(machine, kind)
    own, partner = "spiffe://cluster.local", "spiffe://partner.org"
    await stream.ask(["default", str(WEB), str(API), "ROOTCA", "ALL", own, partner])
    found = await stream.secrets()
    assert {name: who(found[name]) for name in ("default", str(WEB), str(API))} == {
        "default": str(WEB), str(WEB): str(WEB), str(API): str(API),
    }  # fmt: skip
    assert {name: trusted(found[name]) for name in ("ROOTCA", "ALL", own, partner)} == {
        "ROOTCA": ["cluster.local"], "ALL": ["cluster.local", "partner.org"],
        own: ["cluster.local"], partner: ["partner.org"],
    }  # fmt: skip


async def test_who_names_nothing_gets_each_once(machine: Machine) -> None:
    stream = Stream(machine)
    await stream.ask([])
    assert sorted(await stream.secrets()) == [
        "spiffe://cluster.local", str(API), str(WEB), "spiffe://partner.org",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["", "Delta"])
@pytest.mark.parametrize(
    "name", ["spiffe://cluster.local/ns/default/sa/other", "spiffe://other.org", "x", "../default"]
)
async def test_a_secret_that_is_not_the_caller_s_ends_the_stream(machine: Machine, kind: str, name: str) -> None:
    stream = Stream(machine, kind)
    await stream.ask(["default", name])
    assert await stream.ends() == (Code.INVALID_ARGUMENT, f"`{name}` is no secret of this process")


async def test_nobody_gets_nothing_and_before_policyd_has_spoken_everybody_waits(machine: Machine) -> None:
    machine.register()
    stream = Stream(machine)
    await stream.ask(["default"])
    assert await stream.ends() == (Code.PERMISSION_DENIED, "no identity issued")
    async with running() as early:
        stream = Stream(early)
        await stream.ask(["ROOTCA"])
        assert await stream.ends() == (Code.UNAVAILABLE, "identities cannot be had now")


@pytest.mark.parametrize(
    ("failure", "code"), [(IssuanceDenied("no"), Code.PERMISSION_DENIED), (Unreachable("away"), Code.UNAVAILABLE)]
)
async def test_a_failure_of_policyd_says_whether_to_try_again(
    machine: Machine, failure: Any, code: grpc.StatusCode
) -> None:
    machine.control.failure = failure
    stream = Stream(machine)
    await stream.ask(["default"])
    assert (await stream.ends())[0] is code


async def test_past_the_front_nobody_is_known(machine: Machine) -> None:
    async with grpc.aio.insecure_channel(f"unix:{machine.place.runtime / 'api' / 's'}") as machine.channel:
        stream = Stream(machine)
        await stream.ask(["default"])
        assert await stream.ends() == (Code.PERMISSION_DENIED, "no identity issued")


@pytest.mark.parametrize("kind", ["", "Delta"])
async def test_what_was_taken_is_not_said_again_and_what_changed_is(machine: Machine, kind: str) -> None:
    stream = Stream(machine, kind)
    await stream.ask(["ALL"])
    first = await stream.hear()
    await stream.ask(["ALL"] if not kind else [], response_nonce=first.nonce)
    machine.register(Registered(WEB, MINE), Registered(API, MINE))  # the partner is known no more
    assert {name: trusted(one) for name, one in (await stream.secrets()).items()} == {"ALL": ["cluster.local"]}


async def test_a_secret_that_was_refused_is_said_and_not_sent_again(machine: Machine) -> None:
    stream = Stream(machine)
    await stream.ask(["ALL"])
    first = await stream.hear()
    await stream.ask(["ALL"], response_nonce=first.nonce, error_detail={"code": 3, "message": "no such thing"})
    machine.register(Registered(WEB, MINE), Registered(API, MINE))
    assert list(await stream.secrets()) == ["ALL"]

    async def said() -> bool:  # the new secret may overtake what is said of the old one
        return any(one["event"] == "workload.secret_rejected" for one in machine.said)

    await eventually(said, "the refusal is said")
    assert [one["reason"] for one in machine.said if one["event"] == "workload.secret_rejected"] == ["no such thing"]


def knows_only(socket: Path, port: int, admin: Path, delta: bool) -> dict[str, Any]:
    """The bootstrap of an Envoy of somebody else: it serves mutual TLS with what the socket gives it."""
    http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    tls = TYPE_PREFIX + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    hcm = TYPE_PREFIX + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = {"@type": TYPE_PREFIX + "envoy.extensions.filters.http.router.v3.Router"}

    def secret(name: str) -> dict[str, Any]:
        source = {
            "api_type": "DELTA_GRPC" if delta else "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "agent"}}],
        }
        return {"name": name, "sds_config": {"resource_api_version": "V3", "api_config_source": source}}

    routes = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "hello"}}}]
    manager = {
        "@type": hcm,
        "stat_prefix": "in",
        "http_filters": [{"name": "router", "typed_config": router}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    }
    common = {
        "tls_certificate_sds_secret_configs": [secret("default")],
        "validation_context_sds_secret_config": secret("ALL"),
    }
    context = {"@type": tls, "require_client_certificate": True, "common_tls_context": common}
    chain = {
        "transport_socket": {"name": "tls", "typed_config": context},
        "filters": [{"name": "http", "typed_config": manager}],
    }
    return {
        "node": {"id": "somebody's", "cluster": "test"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [chain],
                }
            ],
            "clusters": [
                {
                    "name": "agent",
                    "typed_extension_protocol_options": {
                        http2: {"@type": TYPE_PREFIX + http2, "explicit_http_config": {"http2_protocol_options": {}}}
                    },
                    "load_assignment": {
                        "cluster_name": "agent",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(socket)}}}}]}],
                    },
                }
            ],
        },
    }


async def hello(port: int, ca: ToyCa, uri: str, folder: Path) -> tuple[bytes, bytes]:
    """What a client with a certificate of `ca` hears, and the certificate that it is shown."""
    key = ec.generate_private_key(ec.SECP256R1())
    file = folder / "client.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(secret + Bundle("x", ca.sign(key.public_key(), [uri])).pem())
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(file)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        return await reader.read(), writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()


@pytest.mark.e2e
@pytest.mark.parametrize("delta", [False, True], ids=["state of the world", "delta"])
async def test_a_real_envoy_needs_nothing_but_the_socket(machine: Machine, tmp_path: Path, delta: bool) -> None:
    port = free_port()
    envoy = EnvoyProcess("any", knows_only(machine.place.socket, port, tmp_path / "a", delta))
    async with envoy:

        async def heard(ca: ToyCa, uri: str) -> bytes:
            try:
                said, shown = await hello(port, ca, uri, tmp_path)
            except OSError:
                return b""
            certificate = x509.load_der_x509_certificate(shown)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(WEB)]
            return said

        async def welcome() -> bool:
            return (await heard(machine.control.ca, str(API))).endswith(b"hello")

        async def strange() -> bool:
            return not await heard(PARTNER, "spiffe://partner.org/web")

        await eventually(welcome, "Envoy serves with the secrets of the socket")
        assert (await heard(PARTNER, "spiffe://partner.org/web")).endswith(b"hello")
        assert await heard(ToyCa("cluster.local"), str(API)) == b""
        machine.register(Registered(WEB, MINE), Registered(API, MINE))
        await eventually(strange, "Envoy knows the partner no more")
        assert await welcome()
