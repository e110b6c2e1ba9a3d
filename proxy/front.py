"""The socket that processes of this machine connect to: looks who came, and passes their bytes on to the gRPC server.

Law: gRPC shows no credentials of Unix sockets, so each connection goes on from an abstract socket with a name that
nobody can guess, by which the server finds who it is. The server's own socket is in a folder that only its user enters.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import stat
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from policyd.errors import StateError
from policyd.state_paths import MAX_SOCKET_PATH
from proxy.caller import Caller, Options

CHUNK: Final = 64 << 10
MAX_CONNECTIONS: Final = 1024
MAX_OF_ONE_USER: Final = 256
BACKLOG: Final = 128
_PREFIX: Final = "policyd-workload-"

Look = Callable[[Options], Caller]


class Front:
    """`start`, `stop`; `caller` tells who is behind a peer that the server sees."""

    def __init__(self, place: Path, inner: Path, look: Look, *, mode: int = 0o600) -> None:
        self._place = place
        self._inner = inner
        self._look = look
        self._mode = mode
        self._callers: dict[str, Caller] = {}
        self._users: Counter[int] = Counter()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def caller(self, peer: str) -> Caller | None:
        """Who is behind a peer, as gRPC names it (`unix-abstract:NAME`); None for one that came past the front."""
        return self._callers.get(peer.partition(":")[2].replace("%00", "").strip("\0"))

    async def start(self) -> None:
        """Listen; raises StateError where somebody else does, or nobody can."""
        await self._clear()
        try:
            self._server = await asyncio.start_unix_server(self._accept, self._place, backlog=BACKLOG)
            self._place.chmod(self._mode)
        except OSError as error:
            raise StateError(f"`{self._place}` cannot be listened on: {error.strerror or error}") from None

    async def stop(self) -> None:
        """End every connection and remove the socket."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._place.unlink(missing_ok=True)

    async def _clear(self) -> None:
        """Remove what an agent that was killed left; refuse to take what is another's."""
        if len(str(self._place).encode()) > MAX_SOCKET_PATH:
            raise StateError(f"the path `{self._place}` is too long for a socket", remedy="choose a shorter one")
        try:
            if not stat.S_ISSOCK(self._place.lstat().st_mode):
                raise StateError(f"`{self._place}` is there and is no socket", remedy="choose another path")
            _, writer = await asyncio.open_unix_connection(self._place)
        except FileNotFoundError:
            return
        except OSError:
            self._place.unlink(missing_ok=True)
            return
        writer.close()
        raise StateError(f"somebody listens on `{self._place}` already", remedy="end it, or choose another path")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if len(self._tasks) <= MAX_CONNECTIONS:
                await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = await asyncio.to_thread(self._look, writer.get_extra_info("socket"))
        if self._users[caller.uid] >= MAX_OF_ONE_USER:
            return
        name = _PREFIX + secrets.token_hex(16)
        self._users[caller.uid] += 1
        self._callers[name] = caller
        try:
            await self._pass_on(name, reader, writer)
        finally:
            del self._callers[name]
            self._users[caller.uid] -= 1
            if not self._users[caller.uid]:
                del self._users[caller.uid]

    async def _pass_on(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.bind(f"\0{name}")
            await asyncio.get_running_loop().sock_connect(connection, str(self._inner))
            inner_reader, inner_writer = await asyncio.open_unix_connection(sock=connection)
        except BaseException:
            connection.close()
            raise
        both = [asyncio.ensure_future(_copy(reader, inner_writer)), asyncio.ensure_future(_copy(inner_reader, writer))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)  # one side has gone: so does the other
        finally:
            for each in both:
                each.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            inner_writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
