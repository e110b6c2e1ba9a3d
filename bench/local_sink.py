"""Takes what Envoy tells of its own decisions, as an agent does, and forgets it as if policyd had it.

`python -m bench.local_sink SOCKET FOLDER`: where it listens, and where its spool is.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc

from proxy.decided import Decided, Listening
from proxy.outside import Outside
from proxy.spool import Spool


async def _serve(socket: Path, folder: Path) -> None:
    spool = Spool(folder)

    def forget() -> None:
        spool.kept(spool.read(0)[0])

    decided = Decided("bench", lambda: spool, Outside(say=print), forget)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Listening(decided).handler(),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2])))
