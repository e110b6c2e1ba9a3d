"""What grpcio's synchronous server has inside and offers nobody, in one place: its version is pinned.

Law: a call stays grpcio's own from its first event to its last. Only the thread that would wait for its message is
spared: who is told of the message when it comes makes the call then, as a thread of the pool would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
from grpc import _server
from grpc._cython import cygrpc  # type: ignore[attr-defined]

_NO_FLAGS: Final = 0
_AT_ONCE: Final = 0.0  # a deadline that has long passed

Behavior = Callable[[Iterator[bytes], grpc.ServicerContext], bytes]


class Begun:
    """A call that has begun, whose message may be still to come; `arguments` as grpcio submits them to its pool."""

    __slots__ = ("_behavior", "_event", "_run", "_serializers", "_state", "_work", "context")

    def __init__(self, run: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self._run = run  # in a context of variables of its own
        self._work, self._event, self._state, self._behavior, _, *self._serializers = arguments
        self.context: grpc.ServicerContext = _server._Context(self._event, self._state, None)

    def listen(self, heard: Callable[[Begun, bytes | None], None]) -> None:
        """Have `heard` called with the message, in the thread that takes events; None: there will be none."""
        state, call = self._state, self._event.call
        taken = _server._receive_message(state, call, None)

        def came(event: Any) -> Any:
            outcome = taken(event)
            message, state.request = state.request, None
            heard(self, message)
            return outcome

        with state.condition:
            call.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), came)
            state.due.add(_server._RECEIVE_MESSAGE_TOKEN)

    def make(self, message: bytes | None, behavior: Behavior | None = None) -> None:
        """Call what answers, or `behavior`, and send what it returns or raises; returns once that is handed over."""
        messages = iter(() if message is None else (message,))
        answers = behavior or self._behavior
        self._run(self._work, self._event, self._state, answers, lambda: messages, *self._serializers)


def begun(run: Callable[..., object], arguments: tuple[Any, ...]) -> Begun | None:
    """The call that is submitted, if it gives one reply to a stream of messages, which it takes as bytes."""
    if arguments[0] is not _server._unary_response_in_pool or arguments[_DESERIALISER] is not None:
        return None
    return Begun(run, arguments)


_DESERIALISER: Final = 5  # where it stands among: what runs, the event, the state, what answers, its argument


def take_event(server: grpc.Server) -> bool:
    """Take one event that is there, in the thread that takes them; whether there was one.

    Once the server is to stop, it takes none: that thread itself has to see the last one.
    """
    state = server._state  # type: ignore[attr-defined]
    if state.stage is not _server._ServerStage.STARTED:
        return False
    event = state.completion_queue.poll(_AT_ONCE)
    if event.completion_type == cygrpc.CompletionType.queue_timeout:
        return False
    # never the last: after the stop two more come at least
    _server._process_event_and_continue(state, event)
    return True
