"""One real Envoy in which each request is decided twice: by policyd's own code, and by the compiled filter.

The route says which set of policies holds (header `x-set`). The check goes to policyd's own service, which always lets
it pass and says what it would have answered; then the filter decides.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import grpc

from policyd import envoy_api
from policyd.audit.record import Entry
from policyd.authz.service import SERVICE, Authorizer
from policyd.envoy_api import envoy_binary
from policyd.local import envoy, replies, users
from policyd.names import AUTHZ_FILTER, EXTENSION_LISTENER, SNI_HEADER
from policyd.spiffe import SpiffeId
from policyd.xds.resources import filters, tokens
from policyd.xds.resources.model import AUTHZ_CLUSTER, Control
from tests.certificates import Authority
from tests.fakes.decision_metrics import FakeDecisionMetrics
from tests.local.world import Asked, Case
from tests.ports import free_port

BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap"
TYPE = "type.googleapis.com/"
CENTRAL, LOCAL, DETAILS, LEFT = "x-central", "x-local", "x-details", "x-left"
ASIDE = Control("127.0.0.1", (1,), SpiffeId.server("cluster.local"), authz_timeout_seconds=100)
LOOPBACK = {"address": "127.0.0.1"}
ANYWHERE = {"address": "::", "ipv4_compat": True}
AT_ONCE = 40  # requests on their way on one connection
NO_POLICY = {name.replace(" ", "_") for name in (envoy.INCOMPLETE, envoy.BAD_PATH, envoy.FAILED, envoy.NOBODY)}


class Central:
    """policyd's service for many sets; who asks is the owner of the listener, as the certificate would say."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._kept = threading.local()
        self._message = envoy_api.message("envoy.service.auth.v3.CheckRequest")
        self._owners = [one.listener.owner for one in cases]
        self._authorizers = [self._authorizer(one) for one in cases]

    def _authorizer(self, case: Case) -> Authorizer:
        def keep(entry: Entry) -> None:
            self._kept.entry = entry

        return Authorizer(
            ruling=lambda: case.ruling,
            record=keep,
            metrics=FakeDecisionMetrics(),
            clock=lambda: datetime.now(UTC),
            stopwatch=time.monotonic,
        )

    def check(self, body: bytes, _: object) -> bytes:
        """Say in a header what would have been answered."""
        number = int(self._message.FromString(body).attributes.context_extensions["set"])
        self._authorizers[number].check(body, self._owners[number])
        entry: Entry = self._kept.entry
        said = f"{entry.status} {entry.reasons[0] if entry.reasons else ''}"
        ok = {"response_headers_to_add": [{"header": {"key": CENTRAL, "value": said}}]}
        return envoy_api.pack("envoy.service.auth.v3.CheckResponse", {"status": {"code": 0}, "ok_response": ok})


@contextmanager
def serving(central: Central, folder: Path) -> Iterator[str]:
    """Serve on a Unix socket."""
    server = grpc.server(ThreadPoolExecutor(4))
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(central.check)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    path = str(folder / "authz.sock")
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        yield path
    finally:
        server.stop(None).wait()


# ---- the Envoy


def _routes(case: Case) -> list[dict[str, Any]]:
    """The route of a set; of one whose listener takes tokens, behind it that of what is left to policyd."""
    here = _route(case)
    if not case.listener.issuers:
        return [here]
    asked = users.asked(case.listener.issuers, case.compiled.claims)
    left = {**here, "response_headers_to_add": [{"header": {"key": LEFT, "value": "policyd"}}]}
    here["match"] = {**here["match"], "dynamic_metadata": users.is_told()}
    here["typed_per_filter_config"] |= asked
    left["typed_per_filter_config"] = {
        name: one for name, one in here["typed_per_filter_config"].items() if name != envoy.FILTER
    }
    return [here, left]


def _route(case: Case) -> dict[str, Any]:
    said = {EXTENSION_LISTENER: case.listener.name, "set": str(case.number)}
    per_route = {
        AUTHZ_FILTER: {
            "@type": f"{filters.HTTP}.ext_authz.v3.ExtAuthzPerRoute",
            "check_settings": {"context_extensions": said},
        },
        envoy.FILTER: {"@type": f"{filters.HTTP}.rbac.v3.RBACPerRoute", "rbac": _untyped(envoy.rbac(case.compiled))},
    }
    is_set = {"name": "x-set", "string_match": {"exact": str(case.number)}}
    what: dict[str, Any] = {"connect_matcher": {}} if case.compiled.connects else {"prefix": "/"}
    return {
        "match": {**what, "headers": [is_set]},
        "direct_response": {"status": 200},
        "typed_per_filter_config": per_route,
    }


def _untyped(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "@type"}


def _listener(name: str, at: dict[str, Any], cases: Sequence[Case], socket_: dict[str, Any]) -> dict[str, Any]:
    decided = "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id)%"
    told = [{"header": {"key": LOCAL, "value": decided}}]
    why = {"header": {"key": DETAILS, "value": "%RESPONSE_CODE_DETAILS%"}}
    denials = [{**one, "headers_to_add": [*one.get("headers_to_add", []), why]} for one in replies.mappers()]
    rbac = {"name": envoy.FILTER, "typed_config": {"@type": f"{filters.HTTP}.rbac.v3.RBAC"}}
    routes = [route for case in cases for route in _routes(case)]
    hosts = [{"name": "all", "domains": ["*"], "response_headers_to_add": told, "routes": routes}]
    taking = next((one for one in cases if one.listener.issuers), None)
    verified = tokens.verification(taking.ruling.mesh, taking.instance) if taking else []
    behind = [users.told()] if taking else []
    manager = filters.manager(
        name,
        [*verified, *behind, filters.authorization(ASIDE, tokens=True), replies.identified(), rbac],
        {"route_config": {"name": name, "virtual_hosts": hosts}},
        local_reply_config={"mappers": denials},
        upgrade_configs=[{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}],
    )
    return {
        "name": name,
        "address": {"socket_address": at},
        "filter_chains": [{"filters": [manager], **socket_}],
    }


def _tls(folder: Path, authority: Authority) -> dict[str, Any]:
    chain, key = authority.issue("spiffe://cluster.local/ns/default/sa/shop")
    for name, text in (("chain", chain), ("key", key), ("ca", authority.pem)):
        (folder / f"{name}.pem").write_text(text)
    files = {"certificate_chain": {"filename": f"{folder}/chain.pem"}, "private_key": {"filename": f"{folder}/key.pem"}}
    common = {
        "tls_certificates": [files],
        "validation_context": {"trusted_ca": {"filename": f"{folder}/ca.pem"}},
    }
    context = f"{TYPE}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    config = {"@type": context, "require_client_certificate": True, "common_tls_context": common}
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": config}}


def _bootstrap(listeners: Sequence[dict[str, Any]], authz: str) -> dict[str, Any]:
    http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {"@type": f"{TYPE}{http2}", "explicit_http_config": {"http2_protocol_options": {}}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": authz}}}}]}
    cluster = {
        "name": AUTHZ_CLUSTER,
        "type": "STATIC",
        "typed_extension_protocol_options": {http2: options},
        "load_assignment": {"cluster_name": AUTHZ_CLUSTER, "endpoints": [endpoint]},
    }
    runtime = {"name": "policyd", "static_layer": {"re2.max_program_size.error_level": 32_768}}  # as proxies have it
    return {
        "layered_runtime": {"layers": [runtime]},
        "static_resources": {"clusters": [cluster], "listeners": list(listeners)},
    }


@dataclass(frozen=True)
class Place:
    """Where the Envoy listens, and who issues the certificates of callers."""

    authority: Authority
    tls: int
    plain: int

    def connection(self, caller: str, source: str) -> socket.socket:
        """A connection of a caller, "" for one without a certificate, from an address; from one with a zone, to it."""
        to = source if "%" in source else "127.0.0.1", self.tls if caller else self.plain
        made = socket.create_connection(to, timeout=60, source_address=None if "%" in source else (source, 0))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._context(caller).wrap_socket(made) if caller else made

    def _context(self, caller: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.pem)
        context.check_hostname = False
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write("".join(self.authority.issue(caller)))
            file.flush()
            context.load_cert_chain(file.name)
        return context


@contextmanager
def running(cases: Sequence[Case], at: Mapping[str, Any] = LOOPBACK) -> Iterator[Place]:
    """An Envoy that decides by all these sets, `at` an address, and policyd's service beside it."""
    folder = Path(tempfile.mkdtemp(prefix="policyd-"))
    place = Place(Authority("callers"), free_port(), free_port())
    verified = [one for one in cases if one.listener.verifies_peers]
    strangers = [one for one in cases if not one.listener.verifies_peers]
    with serving(Central(cases), folder) as authz:
        listeners = [
            _listener("tls", {**at, "port_value": place.tls}, verified, _tls(folder, place.authority)),
            _listener("plain", {**at, "port_value": place.plain}, strangers, {}),
        ]
        # in the form in which sidecars get it, which is nested less deep than JSON
        (folder / "envoy.pb").write_bytes(envoy_api.pack(BOOTSTRAP, _bootstrap(listeners, authz)))
        arguments = ["-c", f"{folder}/envoy.pb", "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([envoy_binary(), *arguments], stdout=log, stderr=log)
        try:
            _await(place.plain, process, folder / "log")
            yield place
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(folder)


def _await(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it listens; a configuration that it does not take (in its strict mode) ends it."""
    ends = time.monotonic() + 90
    while True:
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < ends, log.read_text()[-4000:]
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


# ---- requests


@dataclass(frozen=True)
class Answer:
    """Both decisions as status and policy, None where Envoy itself refused before any; and what the caller gets.

    What was left to policyd (`is_left`) has its answer.
    """

    central: tuple[int, str] | None
    local: tuple[int, str] | None
    body: str
    headers: Mapping[str, str]
    is_left: bool = False


def answers(place: Place, caller: str, source: str, requests: Sequence[Asked]) -> Iterator[tuple[Asked, Answer]]:
    """Ask on one connection, many at once; on a new one where Envoy has closed it."""
    left = list(requests)
    while left:
        done = 0
        with place.connection(caller, source) as connection, connection.makefile("rb") as reader:
            for request, answer, closed in _asked(connection, reader, left):
                done += 1
                yield request, answer
                if closed:
                    break
        left = left[done:]
        assert done, "a connection without an answer"


def _asked(
    connection: socket.socket, reader: IO[bytes], requests: Sequence[Asked]
) -> Iterator[tuple[Asked, Answer, bool]]:
    for start in range(0, len(requests), AT_ONCE):
        some = requests[start : start + AT_ONCE]
        connection.sendall(b"".join(one.raw for one in some))
        for request in some:
            read = _read(reader, request.method)
            if read is None:
                return
            yield (request, *read)


def over_http_2(place: Place, request: Asked) -> Answer:
    """Ask in plain text."""
    given = [b"Host: " + request.host.encode(), *(name.encode() + b": " + value for name, value in request.headers)]
    options = [part for one in (*given, b"x-set: %d" % request.case) for part in (b"-H", one)]
    line = [b"-X", request.method.encode(), b"--request-target", request.target, f"http://127.0.0.1:{place.plain}/"]
    command = ["curl", "-si", "--max-time", "60", "--http2-prior-knowledge", "--path-as-is", *options, *line]
    with BytesIO(subprocess.run(command, check=True, capture_output=True).stdout) as reader:
        read = _read(reader, request.method)
    assert read is not None
    return read[0]


def is_let_in(place: Place, case: int, authority: str, said: Sequence[bytes] = ()) -> bool:
    """Ask for a tunnel in plain text over HTTP/2, as sidecars do, where Envoy takes names that it refuses in HTTP/1.1.

    By hand, since no client of ours would send them: no header is compressed, and 200 is one of HPACK's own.
    """

    def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
        return len(body).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + body

    fields = [(b":method", b"CONNECT"), (b":authority", authority.encode()), (b"x-set", b"%d" % case)]
    fields += [(SNI_HEADER.encode(), one) for one in said]
    block = b"".join(b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in fields)
    with place.connection("", "127.0.0.1") as connection, connection.makefile("rb") as reader:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, block))
        while True:
            head = reader.read(9)
            body = reader.read(int.from_bytes(head[:3]))
            if head[3] == 1:
                return body[0] == 0x88


def _read(reader: IO[bytes], method: str) -> tuple[Answer, bool] | None:
    first = reader.readline()
    if not first:
        return None
    status = int(first.split()[1])
    headers: dict[str, str] = {}
    while line := reader.readline().rstrip(b"\r\n"):
        name, _, value = line.decode("latin-1").partition(": ")
        headers[name] = value
    body = reader.read(int(headers.get("content-length", "0"))).decode() if method != "HEAD" else ""
    central = _decided(headers[CENTRAL]) if CENTRAL in headers else None
    is_left = LEFT in headers
    answer = Answer(central, central if is_left else _local(status, headers), body, headers, is_left)
    return answer, headers.get("connection") == "close"


def _decided(text: str) -> tuple[int, str]:
    status, _, policy = text.partition(" ")
    return int(status), policy.strip()


def _local(status: int, headers: Mapping[str, str]) -> tuple[int, str] | None:
    if status == 200:
        return 200, headers.get(LOCAL, "")
    prefix = "rbac_access_denied_matched_policy["
    details = headers.get(DETAILS, "")
    if not details.startswith(prefix):
        return None
    policy = details.removeprefix(prefix).removesuffix("]")
    return status, "" if policy in NO_POLICY else policy
