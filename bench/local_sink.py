"""Takes what Envoy writes of its own decisions, as an agent does, and forgets it as if policyd had it.

`python -m bench.local_sink PIPE FOLDER`: where it reads, and where its spool is.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from proxy.decided import Decided
from proxy.outside import Outside
from proxy.pipe import Pipe
from proxy.spool import Spool


async def _read(path: Path, folder: Path) -> None:
    spool = Spool(folder)

    def forget() -> None:
        spool.kept(spool.read(0)[0])

    Pipe(path, Decided("bench", lambda: spool, Outside(say=print), forget)).open()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_read(Path(sys.argv[1]), Path(sys.argv[2])))
