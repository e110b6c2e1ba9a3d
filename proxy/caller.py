"""Who is at the other end of a Unix socket, by what the kernel says of it and by nothing that it says itself.

Law: what is read of a process is read while the very process that connected is known to live (SO_PEERPIDFD), so that
another one with its number is never taken for it. What cannot be read is left out: evidence is never guessed.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import select
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

MAX_PROGRAM: Final = 512 << 20  # bytes of a program whose hash is asked for
SO_PEERPIDFD: Final = 77  # asm-generic/socket.h, since Linux 6.5
_PROC: Final = Path("/proc")
_PEER: Final = struct.Struct("3i")


class Options(Protocol):
    """The part of a socket that is asked."""

    def getsockopt(self, level: int, option: int, size: int = 0, /) -> bytes | int:
        """As of a socket."""


@dataclass(frozen=True, slots=True)
class Started:
    """A program that `policyd up` started: the id of its process, and when that began, as /proc counts it."""

    pid: int
    began: int


@dataclass(frozen=True, slots=True)
class Caller:
    """A process that connected; `selectors` is what was found out about it."""

    pid: int
    uid: int
    selectors: frozenset[str]


def identify(connection: Options, started: Callable[[], Mapping[str, Started]], *, hashes: bool) -> Caller:
    """Say who connected; `started` gives the applications by instance, `hashes`: the program's hash is wanted too."""
    pid, uid, gid = _credentials(connection)
    found = set(_of_user(uid, gid))
    with _Living(connection) as alive:
        if alive is not None:
            of_process = set(_of_process(pid, started(), hashes=hashes))
            if alive():  # to the last moment it was the one that connected
                found |= of_process
    return Caller(pid, uid, frozenset(found))


def user_of(connection: Options) -> Caller:
    """Of who connected only the process and the user, where nothing else counts."""
    pid, uid, _ = _credentials(connection)
    return Caller(pid, uid, frozenset())


def began(pid: int) -> int | None:
    """When a process began, as /proc counts it; None where there is none."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def _credentials(connection: Options) -> tuple[int, int, int]:
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    assert isinstance(data, bytes)
    pid, uid, gid = _PEER.unpack(data)
    return pid, uid, gid


class _Living:
    """While open: a function that tells whether the process that connected still lives; None where none can."""

    def __init__(self, connection: Options) -> None:
        self._connection = connection
        self._descriptor = -1

    def __enter__(self) -> Callable[[], bool] | None:
        try:
            found = self._connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
        except OSError:  # an older kernel, or it has ended
            return None
        assert isinstance(found, int)
        self._descriptor = found
        return self._lives

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _lives(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)  # readable once it has ended (pidfd_open(2))
        return not poll.poll(0)


def _of_user(uid: int, gid: int) -> Iterator[str]:
    yield f"unix:uid:{uid}"
    yield f"unix:gid:{gid}"
    with suppress(KeyError):
        yield f"unix:user:{pwd.getpwuid(uid).pw_name}"
    with suppress(KeyError):
        yield f"unix:group:{grp.getgrgid(gid).gr_name}"


def _of_process(pid: int, started: Mapping[str, Started], *, hashes: bool) -> Iterator[str]:
    if pid <= 0:  # of another process namespace
        return
    for gid in _groups(pid):
        yield f"unix:gid:{gid}"
        with suppress(KeyError):
            yield f"unix:group:{grp.getgrgid(gid).gr_name}"
    program = _PROC / str(pid) / "exe"
    with suppress(OSError):
        if _same_mounts(pid):  # else its path may lead to a file of its own making
            yield f"unix:path:{program.readlink()}"
    if hashes and (digest := _hash(program)):
        yield f"unix:sha256:{digest}"
    if instance := _instance(pid, started):
        yield f"policyd:instance:{instance}"


def _groups(pid: int) -> Iterator[int]:
    with suppress(OSError, ValueError):
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("Groups:"):
                yield from map(int, line.split()[1:])


def _same_mounts(pid: int) -> bool:
    return (_PROC / str(pid) / "ns" / "mnt").readlink() == (_PROC / "self" / "ns" / "mnt").readlink()


def _hash(program: Path) -> str:
    try:
        with program.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_PROGRAM:
                return ""
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _instance(pid: int, started: Mapping[str, Started]) -> str:
    """The application whose session the process is in: a session is inherited, and cannot be entered."""
    fields = _stat(pid)
    if not fields:
        return ""
    session = int(fields[3])
    names = (name for name, one in started.items() if one.pid == session and began(session) == one.began)
    return next(names, "")


def _stat(pid: int) -> list[str]:
    """What follows the name in /proc/PID/stat: state, parent, group, session and so on (proc_pid_stat(5))."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return []
