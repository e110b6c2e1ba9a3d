"""An application that knows nothing of a mesh: names, addresses and ports are all that it is told.

`server CERTIFICATE` serves HTTP and WebSocket (8080), gRPC (50051), TLS (8443) and servers that speak first (9000,
7000, 7001, and 3306, which is MySQL's).
`names ADDRESS NAME IP` answers for one name. `client` reads lines of JSON, each a function of this file and its
arguments, and prints what comes of it.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SECONDS = 15
KEPT: list[socket.socket] = []

# ---- the client


def look(name: str) -> list[str]:
    """The addresses of a name."""
    return sorted({str(one[4][0]) for one in socket.getaddrinfo(name, 1, type=socket.SOCK_STREAM)})


def get(host: str, port: int, path: str = "/", method: str = "GET", by: int = 0) -> list[Any]:
    """A request; `by` is a version of IP, 0: any."""
    address = host
    if by:
        family = socket.AF_INET6 if by == 6 else socket.AF_INET
        address = str(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4][0])
    connection = http.client.HTTPConnection(address, port, timeout=SECONDS)
    connection.request(method, path, headers={"host": host if port == 80 else f"{host}:{port}"})
    reply = connection.getresponse()
    return [reply.status, reply.read().decode()]


def greet(host: str, port: int) -> str:
    """A call of gRPC."""
    import grpc

    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            call = channel.unary_unary("/demo.Greeter/Hello", lambda one: one, lambda one: one)
            return call(b"world", timeout=SECONDS, wait_for_ready=True).decode()
        except grpc.RpcError as error:
            return error.code().name


def chat(host: str, port: int, path: str) -> str:
    """A WebSocket, of which the bytes after the handshake come back."""
    with socket.create_connection((host, port), SECONDS) as there:
        words = ["upgrade: websocket", "connection: Upgrade", "sec-websocket-version: 13"]
        head = [
            f"GET {path} HTTP/1.1",
            f"host: {host}:{port}",
            *words,
            f"sec-websocket-key: {b64encode(bytes(16)).decode()}",
        ]
        there.sendall("\r\n".join([*head, "", ""]).encode())
        reply = there.makefile("rb")
        status = reply.readline().split()[1].decode()
        while reply.readline().strip():
            pass
        if status != "101":
            return status
        there.sendall(b"ping")
        return reply.read(4).decode()


def secure(host: str, port: int, name: str, roots: str) -> str:
    """TLS with whoever proves to be `name`."""
    context = ssl.create_default_context(cafile=roots)
    try:
        with (
            socket.create_connection((host, port), SECONDS) as raw,
            context.wrap_socket(raw, server_hostname=name) as there,
        ):
            there.sendall(b"hello")
            return there.recv(100).decode()
    except (ssl.SSLError, ConnectionError) as error:
        return type(error).__name__


def say(host: str, port: int, text: str = "hello") -> str:
    """What comes back of what is said first; nothing of somebody who does not listen."""
    try:
        with socket.create_connection((host, port), SECONDS) as there:
            there.sendall(text.encode())
            return there.makefile("rb").read().decode()
    except ConnectionError:
        return ""


def hear(host: str, port: int) -> str:
    """What a server says first, and what it answers."""
    try:
        with socket.create_connection((host, port), SECONDS) as there:
            first = there.recv(100)
            there.sendall(b"you")
            return (first + there.recv(100)).decode()
    except ConnectionError as error:
        return type(error).__name__


def keep(host: str, port: int) -> str:
    """What a server says first on a connection that stays open."""
    KEPT.append(socket.create_connection((host, port), SECONDS))
    return KEPT[-1].recv(100).decode()


def client() -> None:
    known = {one.__name__: one for one in (look, get, greet, chat, secure, say, hear, keep)}
    print("ready", flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            found = known[name](*arguments)
        except (OSError, ValueError) as error:
            found = f"{type(error).__name__}: {error}"
        print(json.dumps(found), flush=True)


# ---- the servers


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("upgrade") == "websocket":
            accept = b64encode(sha1((self.headers["sec-websocket-key"] + MAGIC).encode()).digest()).decode()
            self.send_response(101)
            self.send_header("upgrade", "websocket")
            self.send_header("connection", "Upgrade")
            self.send_header("sec-websocket-accept", accept)
            self.end_headers()
            self.wfile.write(self.rfile.read(4))
            self.close_connection = True
            return
        body = f"{self.command} {self.path}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_DELETE = do_GET  # noqa: N815

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


def serve_web(port: int) -> None:
    ThreadingHTTPServer(("0.0.0.0", port), Web).serve_forever()


def serve_grpc(port: int) -> None:
    import grpc

    class Greeter(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, _call: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda request, _context: b"hello " + request)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Greeter()])
    server.add_insecure_port(f"0.0.0.0:{port}")
    server.start()
    server.wait_for_termination()


def serve_connections(port: int, first: bytes, context: ssl.SSLContext | None = None) -> None:
    def talk(there: socket.socket) -> None:
        try:
            there.settimeout(SECONDS)
            with context.wrap_socket(there, server_side=True) if context else there as one:
                one.sendall(first)
                one.sendall(b"hello " + one.recv(100))
        except OSError:
            pass

    listener = socket.create_server(("0.0.0.0", port))
    while True:
        threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()


def serve_names(host: str, name: str, address: str) -> None:
    """A resolver that knows one name, and no other."""
    import dns.message
    import dns.rcode
    import dns.rrset

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind((host, 53))
        while True:
            packet, client = there.recvfrom(4096)
            question = dns.message.from_wire(packet)
            reply = dns.message.make_response(question)
            [asked] = question.question
            if asked.name.to_text() != f"{name}.":
                reply.set_rcode(dns.rcode.NXDOMAIN)
            elif asked.rdtype == 1:
                reply.answer.append(dns.rrset.from_text(asked.name, 5, "IN", "A", address))
            there.sendto(reply.to_wire(), client)


def server(certificate: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    served: list[tuple[Any, ...]] = [
        (serve_web, 8080),
        (serve_grpc, 50051),
        (serve_connections, 8443, b"", context),
        *((serve_connections, port, b"first ") for port in (9000, 7000, 7001, 3306)),
    ]
    threads = [threading.Thread(target=run, args=arguments, daemon=True) for run, *arguments in served]
    for thread in threads:
        thread.start()
    for port in (8080, 50051, 8443, 9000, 7000, 7001, 3306):
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            threading.Event().wait(0.02)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1] == "server":
        server(sys.argv[2])
    elif sys.argv[1] == "names":
        serve_names(*sys.argv[2:])
    else:
        client()
