"""Where packets arrive: `serve PLACE ADDRESS…` answers on many ports by saying who it is, packets only at the
addresses, so that answers come from there; `ask` says what was answered.

`ask` reads lines of JSON: a protocol, an address, a port, and the user and the group that it asks as. `connect HOST
PORT` and `accept PORT` hold one connection, by which a line `say` sends a byte and a line `hear` waits for one.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
from typing import Any

TCP = (22, 53, 80, 443, 5432, 8080, 9000, 9100, 15001, 15006, 15053)
UDP = (53, 54, 15053)
SECONDS = 5
ORIGINAL = 80  # SO_ORIGINAL_DST, and IP6T_SO_ORIGINAL_DST


def original(one: socket.socket) -> list[Any]:
    """The address that a connection was made to."""
    try:
        if one.family == socket.AF_INET:
            port, packed = struct.unpack("!2xH4s8x", one.getsockopt(socket.SOL_IP, ORIGINAL, 16))
        else:
            port, packed = struct.unpack("!2xH4x16s4x", one.getsockopt(socket.IPPROTO_IPV6, ORIGINAL, 28))
        return [socket.inet_ntop(one.family, packed), port]
    except OSError:  # nothing watches connections here
        return [*one.getsockname()[:2]]


def bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, kind)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    one.bind((host, port))
    if kind == socket.SOCK_STREAM:
        one.listen(64)
    return one


def serve(place: str, *addresses: str) -> None:
    open_ = [bound(host, port, socket.SOCK_STREAM) for host in ("0.0.0.0", "::") for port in TCP]
    open_ += [bound(host, port, socket.SOCK_DGRAM) for host in addresses for port in UDP]
    print("ready", flush=True)
    while True:
        for one in select.select([*open_, sys.stdin], [], [])[0]:
            if one is sys.stdin:
                return  # it is closed
            port = one.getsockname()[1]
            if one.type == socket.SOCK_DGRAM:
                _, asker = one.recvfrom(100)
                one.sendto(json.dumps([place, port, []]).encode(), asker)
                continue
            with one.accept()[0] as there:
                there.sendall(json.dumps([place, port, original(there)]).encode())


def ask(protocol: str, host: str, port: int, uid: int, gid: int) -> Any:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    os.setegid(gid)
    os.seteuid(uid)
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as one:
            one.settimeout(SECONDS)
            one.connect((host, port))
            if protocol == "udp":
                one.send(b"?")
            return json.loads(one.recv(1000))
    except OSError as error:
        return type(error).__name__
    finally:
        os.seteuid(0)
        os.setegid(0)


def hold(one: socket.socket) -> None:
    one.settimeout(SECONDS)
    for line in sys.stdin:
        try:
            found: Any = one.send(b"x") if line.strip() == "say" else len(one.recv(1))
        except OSError as error:
            found = type(error).__name__
        print(json.dumps(found), flush=True)


def main() -> None:
    if sys.argv[1] == "connect":
        with socket.create_connection((sys.argv[2], int(sys.argv[3])), SECONDS) as one:
            print("ready", flush=True)
            hold(one)
        return
    if sys.argv[1] == "accept":
        with socket.create_server(("0.0.0.0", int(sys.argv[2]))) as listening:
            print("ready", flush=True)
            hold(listening.accept()[0])
        return
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
        return
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(ask(*json.loads(line))), flush=True)


main()
