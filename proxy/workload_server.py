"""The Workload API and the secrets of Envoys as they are served: the front on its socket, the gRPC server behind it in
a folder of its own.

Law: what is served here ends with the agent and leaves no file.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import grpc.aio
from grpc_reflection.v1alpha import reflection

from policyd._pb import workload_pb2, workload_pb2_grpc
from policyd.envoy_api import EnvoyApi, shared
from policyd.errors import StateError
from proxy import applications
from proxy.book import Book
from proxy.caller import Caller, Options, Started, identify
from proxy.front import Front
from proxy.outside import Outside
from proxy.runtime import afresh
from proxy.workload_api import WorkloadApi
from proxy.workload_sds import WorkloadSds

SOCKET: Final = "workload.sock"  # in the runtime folder, where no other place is named
_INNER: Final = "api"
_SERVICE: Final = workload_pb2.DESCRIPTOR.services_by_name["SpiffeWorkloadAPI"].full_name
_OWNER_ONLY: Final = 0o600
_ALL_USERS: Final = 0o666
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 256 << 10),  # an Envoy tells all that it can do, which is 61 KB
    ("grpc.max_concurrent_streams", 64),
    ("grpc.max_metadata_size", 16 << 10),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the Workload API is: `socket` for processes; `runtime` is the agent's own folder.

    `shared`: for those of all users, and an agent that cannot serve there does not run.
    """

    socket: Path
    runtime: Path
    shared: bool = False


class WorkloadServer:
    """`start` once, `stop` at the end."""

    def __init__(self, place: Place, book: Book, outside: Outside, api: EnvoyApi | None = None) -> None:
        """`api` are the messages of the Envoy that is at hand; None: the wheel's."""
        self._api = api or shared()
        self._place = place
        self._book = book
        self._outside = outside
        self._folder = place.runtime / _INNER
        mode = _ALL_USERS if place.shared else _OWNER_ONLY
        self._front = Front(place.socket, self._folder / "s", self._look, mode=mode)
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Serve; raises StateError where a place that was named cannot be had, else says so."""
        try:
            await self._start()
        except StateError as error:
            if self._place.shared:
                raise
            self._outside.say("workload_api.failed", code=error.code, reason=str(error))
        else:
            self._outside.say("workload_api.ready", socket=str(self._place.socket))

    async def _start(self) -> None:
        try:
            afresh(self._folder)
            server = grpc.aio.server(options=_OPTIONS)
            api = WorkloadApi(self._book, self._front.caller, self._outside.clock, self._outside.say)
            workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(api, server)  # type: ignore[no-untyped-call]
            secrets = WorkloadSds(self._api, self._book, self._front.caller, self._outside.say)
            server.add_generic_rpc_handlers((secrets.handler(),))
            reflection.enable_server_reflection((_SERVICE, reflection.SERVICE_NAME), server)
            server.add_insecure_port(f"unix:{self._folder / 's'}")
            await server.start()
        except (OSError, RuntimeError) as error:  # gRPC reports a socket that it cannot bind so
            raise StateError(f"the Workload API cannot be served in `{self._folder}`: {error}") from None
        self._server = server
        await self._front.start()

    async def stop(self) -> None:
        """End every call, and leave nothing."""
        await self._front.stop()
        if self._server is not None:
            await self._server.stop(None)
        await self._book.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _look(self, connection: Options) -> Caller:
        return identify(connection, partial(_started, self._place.runtime), hashes=self._book.wants_hashes())


def _started(runtime: Path) -> Mapping[str, Started]:
    return applications.read(runtime / applications.FILE)
