"""Calls that have begun and send no message: they hold up nobody else, and not for long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc
import pytest
from structlog.testing import capture_logs

from policyd.authz import reply
from policyd.authz.ruling import Ruling
from policyd.authz.service import Message, add_to_server
from policyd.peer import IDENTITY, NAMES, TLS_VERSION, Facts
from policyd.server.check_threads import CheckThreads
from policyd.server.pausing_threads import PausingThreads
from policyd.server.silence import SILENT_PER_PEER, SILENT_SECONDS, SUSPECT_SECONDS, Silence, one_message
from policyd.server.turns import Turns
from policyd.spiffe import SpiffeId
from tests.audit.samples import wait_until
from tests.authz.checks import PAGE, REVIEWS, check_of
from tests.authz.test_service import ID, House
from tests.authz.test_servicer import METHOD, key_and_chain
from tests.fakes.clock import Watch
from tests.fakes.toy_ca import ToyCa

ALLOWED = reply.allow(ID, "reviews-from-productpage")
CHECK = check_of().SerializeToString()


def _in_turns(silence: Silence, watch: Watch) -> Turns:
    kept = lambda entries: [None] * len(entries)  # noqa: E731
    return Turns(CheckThreads(2, 12), silence, ready=lambda: True, keep_all=kept, stopwatch=watch)


def _threads(_silence: Silence, _watch: Watch) -> CheckThreads:
    return CheckThreads(2, 12)


def _pausing_threads(_silence: Silence, _watch: Watch) -> PausingThreads:
    return PausingThreads(2, 12)


Pool = CheckThreads | PausingThreads | Turns
POOLS: dict[str, Callable[[Silence, Watch], Pool]] = {
    "turns": _in_turns,
    "threads": _threads,
    "pausing threads": _pausing_threads,
}


class Server:
    """A server of two threads and at most twelve, its silent calls, and channels to it."""

    def __init__(self, ruling: Ruling, pool: str) -> None:
        self.ca, self.watch = ToyCa(), Watch()
        self.silence = Silence(self.watch)
        self.threads = POOLS[pool](self.silence, self.watch)
        self.server = grpc.server(self.threads)  # type: ignore[arg-type]  # it only submits
        message: Message = self.silence.message
        if isinstance(self.threads, Turns):
            self.threads.serve(self.server)
            message = one_message
        add_to_server(House(ruling).authorizer, self.server, message)
        own = key_and_chain(self.ca, str(SpiffeId.server("cluster.local")), dns=("policyd",))
        self.port = self.server.add_secure_port(
            "127.0.0.1:0", grpc.ssl_server_credentials([own], self.ca.root.pem, require_client_auth=True)
        )
        self.server.start()
        self.quiet = threading.Event()

    @contextmanager
    def channel(self, who: SpiffeId) -> Iterator[grpc.Channel]:
        credentials = grpc.ssl_channel_credentials(self.ca.root.pem, *key_and_chain(self.ca, str(who)))
        options = [("grpc.ssl_target_name_override", "policyd")]
        with grpc.secure_channel(f"127.0.0.1:{self.port}", credentials, options) as channel:
            yield channel

    def silent(self, channel: grpc.Channel) -> Any:
        """A call that sends no message until the test ends."""

        def messages() -> Iterator[bytes]:
            self.quiet.wait(60)
            yield CHECK

        return channel.stream_unary(METHOD).future(messages(), timeout=60)

    def looked(self, calls: list[Any]) -> bool:
        """Whether all are answered; looks whether threads are held up."""
        self.threads.look()
        return all(call.done() for call in calls)

    def pass_seconds(self, seconds: float) -> None:
        """Have time go by, and the calls looked at."""
        self.watch.now += seconds
        self.silence.look()

    def waiting(self) -> int:
        return self.silence.waiting


@pytest.fixture(params=POOLS)
def server(request: pytest.FixtureRequest, ruling: Ruling) -> Iterator[Server]:
    server = Server(ruling, request.param)
    yield server
    server.quiet.set()
    server.server.stop(None).wait()
    server.threads.shutdown()


def _code(call: Any) -> grpc.StatusCode:
    error = call.exception(60)
    assert isinstance(error, grpc.RpcError), error
    code: grpc.StatusCode = error.code()  # type: ignore[attr-defined]
    return code


def test_calls_without_a_message_hold_up_neither_others_nor_the_same_peers_checks(server: Server) -> None:
    with server.channel(PAGE) as quiet, server.channel(REVIEWS) as lively:
        held = [server.silent(quiet) for _ in range(SILENT_PER_PEER)]
        wait_until(lambda: server.looked(held) or server.waiting() == SILENT_PER_PEER)
        for channel, answer in ((lively, ALLOWED), (quiet, reply.fail(ID))):
            asked = [channel.unary_unary(METHOD).future(CHECK, timeout=60) for _ in range(10)]
            wait_until(lambda asked=asked: server.looked(asked))
            assert [one.result() for one in asked] == [answer] * 10
        assert not [one for one in held if one.done()]


def test_a_peer_that_was_silent_has_a_few_such_calls_at_a_time_for_a_while(server: Server) -> None:
    with server.channel(PAGE) as quiet, server.channel(REVIEWS) as lively:
        first = server.silent(quiet)
        wait_until(lambda: server.waiting() == 1)
        server.pass_seconds(SILENT_SECONDS * 2)
        assert _code(first) == grpc.StatusCode.CANCELLED

        held = [server.silent(quiet) for _ in range(SILENT_PER_PEER)]
        wait_until(lambda: server.looked(held) or server.waiting() == SILENT_PER_PEER)
        one_more = server.silent(quiet)
        wait_until(lambda: server.looked([one_more]))
        assert _code(one_more) == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert lively.unary_unary(METHOD)(CHECK, timeout=60) == ALLOWED

        server.pass_seconds(SUSPECT_SECONDS * 2)
        assert [_code(one) for one in held] == [grpc.StatusCode.CANCELLED] * SILENT_PER_PEER
        wait_until(lambda: server.waiting() == 0)
        server.pass_seconds(SUSPECT_SECONDS * 2)
        again = [server.silent(quiet) for _ in range(SILENT_PER_PEER + 1)]
        wait_until(lambda: server.looked(again) or server.waiting() == SILENT_PER_PEER + 1)


def test_a_call_that_stays_silent_is_ended(server: Server) -> None:
    with server.channel(PAGE) as quiet:
        held = server.silent(quiet)
        wait_until(lambda: server.waiting() == 1)
        server.silence.look()
        assert not held.done()
        server.watch.now += SILENT_SECONDS * 2
        server.silence.look()
        assert _code(held) == grpc.StatusCode.CANCELLED
        wait_until(lambda: server.waiting() == 0)


class Quiet:
    """A call that says nothing, and how often it was asked whose it is."""

    def __init__(self, peer: SpiffeId) -> None:
        self.name = str(peer).encode()
        self.asked, self.ended = 0, False

    def auth_context(self) -> Facts:
        """What is known of the connection."""
        self.asked += 1
        return {TLS_VERSION: [b"TLSv1.3"], NAMES: [self.name], IDENTITY: [self.name]}

    def cancel(self) -> None:
        """It is over."""
        self.ended = True


def test_of_very_many_silent_calls_one_line_tells_and_few_are_looked_at() -> None:
    watch, one_more = Watch(), Quiet(PAGE)
    silence, calls = Silence(watch), [Quiet(PAGE) for _ in range(1_000)]
    for call in calls:
        silence.begins(cast("grpc.ServicerContext", call))
    watch.now += SILENT_SECONDS * 2
    with capture_logs() as said:
        silence.look()
    assert [(one["event"], one["peer"], one["calls"]) for one in said] == [("call.silent", str(PAGE), 1_000)]
    assert all(call.ended for call in calls)

    before = sum(call.asked for call in calls)
    assert silence.refuses(cast("grpc.ServicerContext", one_more))
    assert sum(call.asked for call in calls) - before == SILENT_PER_PEER


def test_a_call_that_ends_without_a_message_is_told_so(server: Server) -> None:
    with server.channel(PAGE) as quiet:
        ended = quiet.stream_unary(METHOD).future(iter(()), timeout=60)
        assert _code(ended) == grpc.StatusCode.INVALID_ARGUMENT
        wait_until(lambda: server.waiting() == 0)
