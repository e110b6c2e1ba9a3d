"""The resolver on real sockets: who asks is answered, and what is passed on comes back only as its answer."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from proxy.dns import server
from proxy.dns.server import Resolver
from proxy.dns.zone import Zone, zone
from tests.ports import free_port

ADDRESS = "243.1.2.3"
ZONE = zone("web-1", "default", (".svc",), [("api.default", True, [socket.inet_aton(ADDRESS)])])


class Upstream(asyncio.DatagramProtocol):
    """A resolver of the machine that answers as it is told to, and keeps what it was asked."""

    def __init__(self, answers: Callable[[dns.message.Message], list[bytes]]) -> None:
        self.answers = answers
        self.asked: list[dns.message.Message] = []
        self.port = free_port()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        question = dns.message.from_wire(data)
        self.asked.append(question)
        for packet in self.answers(question):
            self.transport.sendto(packet, addr)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        question = dns.message.from_wire(data)
        self.asked.append(question)
        for packet in self.answers(question):
            writer.write(len(packet).to_bytes(2) + packet)
        await writer.drain()
        writer.close()


def right(question: dns.message.Message) -> bytes:
    reply = dns.message.make_response(question)
    reply.answer.append(dns.rrset.from_text(question.question[0].name, 5, "IN", "A", "192.0.2.9"))
    return reply.to_wire()


def forged(question: dns.message.Message) -> bytes:
    other = dns.message.from_wire(question.to_wire())
    other.id ^= 1
    reply = dns.message.make_response(other)
    reply.answer.append(dns.rrset.from_text(question.question[0].name, 5, "IN", "A", "203.0.113.1"))
    return reply.to_wire()


class Said(list[tuple[str, dict[str, Any]]]):
    def __call__(self, event: str, **facts: Any) -> None:
        self.append((event, facts))


@asynccontextmanager
async def resolving(
    tmp_path: Path, answers: Callable[[dns.message.Message], list[bytes]] = lambda question: [right(question)],
    zone: Zone | None = ZONE, seconds: float = 20.0,
) -> AsyncIterator[tuple[Resolver, int, Upstream, Said]]:  # fmt: skip
    upstream, port, said = Upstream(answers), free_port(), Said()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: upstream, local_addr=("127.0.0.1", upstream.port)
    )
    tcp = await asyncio.start_server(upstream.connected, "127.0.0.1", upstream.port)
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    resolver = Resolver(said, tmp_path / "resolv.conf", port, upstream.port, seconds)
    try:
        await resolver.serve(zone)
        yield resolver, port, upstream, said
    finally:
        await resolver.end()
        transport.close()
        tcp.close()
        await tcp.wait_closed()


async def ask(name: str, port: int, *, tcp: bool = False, host: str = "127.0.0.1") -> list[str] | str:
    """The addresses that come back, or the error."""
    query = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    reply = await query(dns.message.make_query(name, "A"), host, port=port, timeout=20)
    found = [str(one) for rrset in reply.answer for one in rrset]
    return found if reply.rcode() == dns.rcode.NOERROR else dns.rcode.to_text(reply.rcode())


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_names_of_the_mesh_are_answered_at_once(tmp_path: Path, tcp: bool, host: str) -> None:
    async with resolving(tmp_path) as (_, port, upstream, said):
        assert await ask("api", port, tcp=tcp, host=host) == [ADDRESS]
        assert upstream.asked == []
        assert said == [("dns.names", {"instance": "web-1", "names": 3})]


@pytest.mark.parametrize("tcp", [False, True])
async def test_all_others_are_asked_of_the_machines_resolvers(tmp_path: Path, tcp: bool) -> None:
    async with resolving(tmp_path) as (_, port, upstream, _):
        assert await ask("far.test", port, tcp=tcp) == ["192.0.2.9"]
        assert [str(one.question[0].name) for one in upstream.asked] == ["far.test."]


async def test_a_forged_answer_is_passed_over(tmp_path: Path) -> None:
    async with resolving(tmp_path, lambda question: [b"x", forged(question), right(question)]) as (_, port, _, _):
        assert await ask("far.test", port) == ["192.0.2.9"]


async def test_where_nobody_answers_it_failed(tmp_path: Path) -> None:
    async with resolving(tmp_path, lambda _: [], seconds=0.05) as (_, port, _, _):
        assert await ask("far.test", port) == "SERVFAIL"
        assert await ask("far.test", port, tcp=True) == "SERVFAIL"
        (tmp_path / "resolv.conf").write_text("")
        assert await ask("far.test", port) == "SERVFAIL"
        (tmp_path / "resolv.conf").unlink()
        assert await ask("api", port) == [ADDRESS]


def refuses(question: dns.message.Message) -> bytes:
    reply = dns.message.make_response(question)
    reply.set_rcode(dns.rcode.REFUSED)
    return reply.to_wire()


@pytest.mark.parametrize("first", [None, lambda _: [], lambda question: [refuses(question)]])
async def test_where_the_first_resolver_has_no_answer_the_next_is_asked(
    tmp_path: Path, first: Callable[[dns.message.Message], list[bytes]] | None
) -> None:
    async with resolving(tmp_path, seconds=2.0) as (_, port, upstream, _):
        (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.7\nnameserver 127.0.0.1\n")
        silent = Upstream(first or (lambda _: []))
        loop, address = asyncio.get_running_loop(), ("127.0.0.7", upstream.port)
        transport = (await loop.create_datagram_endpoint(lambda: silent, local_addr=address))[0] if first else None
        assert await ask("far.test", port) == ["192.0.2.9"]
        if transport is not None:
            transport.close()


async def test_where_all_refuse_it_is_said_in_their_words(tmp_path: Path) -> None:
    async with resolving(tmp_path, lambda question: [refuses(question)]) as (_, port, _, _):
        assert await ask("far.test", port) == "REFUSED"


def nowhere(question: dns.message.Message) -> bytes:
    reply = dns.message.make_response(question)
    reply.set_rcode(dns.rcode.NXDOMAIN)
    reply.authority.append(dns.rrset.from_text("test.", 5, "IN", "SOA", "ns.test. me.test. 1 2 3 4 60"))
    return reply.to_wire()


async def test_that_there_is_no_such_name_passes_with_how_long_it_holds(tmp_path: Path) -> None:
    async with resolving(tmp_path, lambda question: [nowhere(question)]) as (_, port, _, _):
        reply = await dns.asyncquery.udp(dns.message.make_query("no.test", "AAAA"), "127.0.0.1", port=port, timeout=20)

        assert (reply.rcode(), str(reply.authority[0])) == (
            dns.rcode.NXDOMAIN,
            "test. 5 IN SOA ns.test. me.test. 1 2 3 4 60",
        )


async def test_what_a_resolver_cut_is_asked_of_it_again_by_tcp(tmp_path: Path) -> None:
    def cut(question: dns.message.Message) -> list[bytes]:
        reply = dns.message.make_response(question)
        if next(times) == 0:
            reply.flags |= dns.flags.TC
            return [reply.to_wire()]
        return [right(question)]

    times = itertools.count()
    async with resolving(tmp_path, cut) as (_, port, upstream, _):
        question = dns.message.make_query("far.test", "A")
        reply, by_tcp = await dns.asyncquery.udp_with_fallback(question, "127.0.0.1", port=port, timeout=20)

        assert (by_tcp, [str(one) for one in reply.answer[0]], len(upstream.asked)) == (True, ["192.0.2.9"], 2)


async def test_connections_are_bounded(tmp_path: Path) -> None:
    async with resolving(tmp_path) as (_, port, _, _):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(server.MAX_CONNECTIONS)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""  # ended at once
        writer.close()
        held[0][1].close()
        await held[0][1].wait_closed()
        while True:  # until that was noticed
            try:
                assert await ask("api", port, tcp=True) == [ADDRESS]
                break
            except (EOFError, OSError):
                await asyncio.sleep(0.01)
        for _, one in held:
            one.close()


async def test_who_asks_too_much_at_a_time_is_told_so(tmp_path: Path) -> None:
    async with resolving(tmp_path, lambda _: []) as (resolver, port, _, _):
        replies: list[bytes] = []
        for number in range(server.MAX_ASKED + 3):
            resolver.asked(dns.message.make_query(f"n{number}.test", "A").to_wire(), replies.append)
        assert [dns.message.from_wire(one).rcode() for one in replies] == [dns.rcode.SERVFAIL] * 3
        assert await ask("api", port) == [ADDRESS]


async def test_a_broken_connection_ends_alone(tmp_path: Path) -> None:
    async with resolving(tmp_path) as (_, port, _, _):
        for packet in (b"\0", b"\0\5abc", b"\0\0", b"\xff\xff" + bytes(10)):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(packet)
            writer.close()
        assert await ask("api", port, tcp=True) == [ADDRESS]


async def test_nobody_is_answered_where_nobody_is_captured(tmp_path: Path) -> None:
    async with resolving(tmp_path) as (resolver, port, _, _):
        await resolver.serve(None)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        await resolver.serve(ZONE)
        assert await ask("api", port) == [ADDRESS]


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    async with resolving(tmp_path, zone=None) as (resolver, port, _, said):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", port))
            await resolver.serve(ZONE)
        assert [(event, facts.get("host")) for event, facts in said] == [
            ("dns.not_listening", "127.0.0.1"),
            ("dns.names", None),
        ]
