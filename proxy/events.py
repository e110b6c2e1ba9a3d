"""What the agent says: one JSON object a line on standard output, and the state of all its Envoys in one file.

Law: neither a reader that went away nor a full disk stops the agent; nothing secret is in an event.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TextIO


class Say(Protocol):
    """Tell that something happened; `event` is `<what>.<happened>`, the rest are its facts."""

    def __call__(self, event: str, **facts: Any) -> None:
        """Write the line."""


def speaker(stream: TextIO, clock: Callable[[], datetime]) -> Say:
    """A Say that writes `{"event": ..., "time": ..., facts}` lines to `stream`."""

    def say(event: str, **facts: Any) -> None:
        line = json.dumps({"event": event, "time": stamp(clock()), **facts}, ensure_ascii=False)
        with suppress(OSError, ValueError):  # the reader has gone, or the stream is closed
            stream.write(line + "\n")
            stream.flush()

    return say


@dataclass(frozen=True, slots=True)
class SidecarStatus:
    """One Envoy as status.json shows it; `pid` is 0 while there is no process."""

    instance: str
    spiffe_id: str
    cluster: str
    state: str
    restarts: int
    pid: int
    svid_expires: str | None  # RFC 3339, UTC
    svid_serial: str | None  # lower-case hex
    admin_socket: str
    log: str
    grpc_bootstrap: str = ""  # of one without an Envoy: what its application is started with


def write_status(path: Path, agent: Mapping[str, Any], sidecars: list[dict[str, Any]]) -> None:
    """Replace the status file (0600) in one step; raises OSError."""
    text = json.dumps({"agent": dict(agent), "sidecars": sidecars}, indent=1) + "\n"
    write_private(path, text.encode())


def write_private(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file of mode 0600 that is either the old one or the new one, whole; raises OSError.

    `durable`: on disk before the old one is replaced.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def stamp(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds; `moment` is in UTC."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
