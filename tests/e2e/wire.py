"""Speaking to the parts of a mesh directly, as somebody who has left out their own sidecar."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509

from tests.e2e.conftest import PROGRAM, RunningMesh


class Refused(Exception):
    """The connection ended without a reply."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A key and a certificate chain in files, and the roots that it believes; all PEM."""

    key: Path
    certificate: Path
    roots: Path

    @property
    def leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificates(self.certificate.read_bytes())[0]

    def context(self) -> ssl.SSLContext:
        """A client's side of mutual TLS that believes the roots and nobody else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # names in a mesh are SPIFFE IDs
        context.load_verify_locations(self.roots)
        context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, and by whom: `peer` is the certificate that the server showed."""

    status: int
    decision_id: str
    peer: x509.Certificate


def policyd(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command for the folder, whatever comes of it."""
    return subprocess.run([PROGRAM, *words, "--dir", str(directory)], capture_output=True, text=True, timeout=30)


def issue(directory: Path, workload: str, out: Path, *options: str) -> Identity:
    """A certificate by hand, as an operator gets it."""
    done = policyd(directory, "ca", "issue", workload, "--out", str(out), *options)
    assert done.returncode == 0, done.stderr
    return Identity(out / "key.pem", out / "certificate.pem", out / "roots.pem")


def https(port: int, identity: Identity, path: str, method: str = "GET") -> Reply:
    """One request over a connection of its own; raises Refused where the handshake does not hold.

    In TLS 1.3 a refusal of the client's certificate comes with the first read, as an alert or as the mere end.
    """
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
            identity.context().wrap_socket(raw) as connection,
        ):
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            return _reply(connection, method)
    except (ssl.SSLError, ConnectionError) as error:
        raise Refused(str(error)) from error


def _reply(connection: ssl.SSLSocket, method: str) -> Reply:
    peer = connection.getpeercert(binary_form=True)
    assert peer
    with closing(http.client.HTTPResponse(connection, method=method)) as response:
        response.begin()
        response.read()
        decision = response.getheader("x-policyd-decision-id") or ""
        return Reply(response.status, decision, x509.load_der_x509_certificate(peer))


def records(directory: Path, **fields: Any) -> list[dict[str, Any]]:
    """The journal's records that have these values, oldest first."""
    found = []
    for file in sorted((directory / ".policyd" / "journal").glob("*.jsonl")):
        for line in file.read_text().rpartition("\n")[0].splitlines():  # the last line may be on its way
            record = json.loads(line)
            if all(record.get(name) == value for name, value in fields.items()):
                found.append(record)
    return found


def sidecar(mesh: RunningMesh, instance: str) -> dict[str, Any]:
    """A sidecar as its agent's status file shows it."""
    runtime = Path(json.loads((mesh.directory / ".policyd" / "server.json").read_text())["admin_socket"]).parent
    status = json.loads((runtime / "agent" / "status.json").read_text())
    found: dict[str, Any]
    [found] = [one for one in status["sidecars"] if one["instance"] == instance]
    return found


def admin(socket_path: Path, path: str) -> str:
    """What an Envoy's own administration answers."""
    connection = http.client.HTTPConnection("envoy")
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(10)
        connection.sock.connect(str(socket_path))
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


@dataclass
class Echo:
    """An application that speaks TCP: `hello ` and what it was sent; `seen` is what reached it."""

    port: int
    seen: list[bytes] = field(default_factory=list)

    @contextmanager
    def served(self) -> Iterator[None]:
        """Answer for the length of a block."""
        with socket.create_server(("127.0.0.1", self.port)) as server:
            threading.Thread(target=self._serve, args=(server,), daemon=True).start()
            yield

    def _serve(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"speaks first, ")
                data = connection.recv(100)
                self.seen.append(data)
                connection.sendall(b"hello " + data)


def tunnelled(mesh: RunningMesh, by: str, to: str) -> tuple[int, bytes]:
    """The status of a tunnel by a sidecar, and what an echo says through it: nothing where it is closed."""
    proxy = urlsplit(mesh.place(by)["proxy_url"])
    secret = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
    with socket.create_connection((proxy.hostname or "", proxy.port or 0), timeout=20) as raw:
        raw.sendall(f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nProxy-Authorization: Basic {secret}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # no byte more: what follows may be the application's
            head += raw.recv(1)
        status = int(head.split(b" ", 2)[1])
        if status != 200:
            return status, b""
        try:
            raw.sendall(b"world\r\n\r\n")
            return 200, b"".join(iter(lambda: raw.recv(100), b""))
        except ConnectionError:
            return 200, b""


@dataclass(frozen=True)
class Echoing:
    """A mesh with an echo in it."""

    mesh: RunningMesh
    echo: Echo

    def connect(self, by: str, to: str = "echo:7000") -> tuple[int, bytes]:
        """The status of the tunnel, and what comes back through it: nothing where it is closed."""
        return tunnelled(self.mesh, by, to)
