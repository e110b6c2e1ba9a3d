"""The port where agents have their keys certified: a synchronous server, whose threads sign others while some wait.

Law: it shares what it decides by, and what it records in, with the rest of the control process, and only that. A call
costs half of what it does on the event loop, and those who come within a few milliseconds share a commit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import grpc

from policyd.audit.group import Wake, sleep
from policyd.audit.journal import Journal
from policyd.ca.serving.signing import Signing, add_to_server
from policyd.config.addresses import Address
from policyd.server import pausing_tasks
from policyd.server.pausing_threads import PausingThreads
from policyd.server.silence import SILENT_PER_PEER, Silence
from policyd.server.transport import AGE, ALONE, GRACE_SECONDS, PINGS, Identity, bind, credentials

THREADS: Final = 1  # the interpreter's lock lets one sign at a time; a second costs what taking turns does
MOST_THREADS: Final = 4 * SILENT_PER_PEER  # where all are held up, as by a key that a program holds
LOOK_SECONDS: Final = 0.5
LINGER_SECONDS: Final = 0.005  # how long a commit of the journal waits for more: one costs as much as signing
MAX_REQUEST_BYTES: Final = 2 << 20  # what a process may have of selectors, each of its greatest length
OPTIONS: Final = (
    ALONE,
    *PINGS,
    *AGE,
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_concurrent_streams", 64),
)


class SigningServer:
    """The server and its threads. `pause` is how all calls of this process wait for the medium, wherever they run."""

    def __init__(self, stack: ExitStack) -> None:
        self._journal: Journal | None = None
        self._threads = PausingThreads(THREADS, MOST_THREADS)
        self._silence = Silence(time.monotonic)
        stack.callback(self._threads.shutdown)

    def records_in(self, journal: Journal) -> None:
        """From now on those who wait, wait for this one."""
        self._journal = journal

    def pause(self, begin: Callable[[Wake], None]) -> None:
        """Call `begin` and wait until what it was given is called; who can do nothing meanwhile has no time to lose."""
        if pausing_tasks.can_pause():
            pausing_tasks.pause(begin)
        elif self._threads.can_pause():
            self._threads.pause(begin)
        else:
            sleep(lambda wake: self._begin(begin, wake))

    def listen(self, stack: ExitStack, signing: Signing, address: Address, identity: Identity) -> None:
        """Answer agents at `address`; raises StateError where another program has it."""
        server = grpc.server(self._threads, options=list(OPTIONS))  # type: ignore[arg-type]  # it only submits
        add_to_server(signing, server, self._threads.together, self._silence.message)
        bind(server, address, credentials(identity, mutual=True))
        server.start()
        stack.callback(lambda: server.stop(GRACE_SECONDS).wait())

    async def look(self) -> None:
        """See again and again whether all threads are held up, and whether by calls that say nothing."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._silence.look()
            self._threads.look()

    def _begin(self, begin: Callable[[Wake], None], wake: Wake) -> None:
        begin(wake)
        self._hurry()

    def _hurry(self) -> None:
        if self._journal is not None:
            self._journal.hurry()
