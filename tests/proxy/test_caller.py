"""Who is at the other end: real processes on real sockets, the one that has ended, the one that pretends."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy import applications
from proxy.caller import Started, began, identify

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Unix peer credentials are the kernel's own")

CONNECT = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.send(b'.'); sys.stdin.read()"
# connects, leaves its socket to a child, and ends: the credentials of the connection are then of a dead process
LEAVE = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
"""


@contextmanager
def listening() -> Iterator[tuple[socket.socket, str]]:
    """A socket that waits for processes, and its path."""
    with tempfile.TemporaryDirectory(prefix="t") as folder, socket.socket(socket.AF_UNIX) as server:
        path = f"{folder}/s"
        server.bind(path)
        server.listen()
        server.settimeout(30)
        yield server, path


@contextmanager
def connected(script: str = CONNECT, *, program: str = sys.executable, session: bool = False) -> Iterator[
    tuple[socket.socket, subprocess.Popen[bytes]]
]:  # fmt: skip
    """A connection of a real process, and the process."""
    with listening() as (server, path):
        command = [program, "-I", "-S", "-c", script, path]
        with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=session) as process:
            connection, _ = server.accept()
            with connection:
                yield connection, process
            assert process.stdin
            process.stdin.close()


def test_a_process_is_known_by_its_user_groups_and_program() -> None:
    with connected() as (connection, process):
        caller = identify(connection, dict, hashes=True)
    program = Path(sys.executable).resolve()
    uid, gid = os.getuid(), os.getgid()
    assert (caller.pid, caller.uid) == (process.pid, uid)
    assert caller.selectors >= {
        f"unix:uid:{uid}",
        f"unix:gid:{gid}",
        f"unix:user:{pwd.getpwuid(uid).pw_name}",
        f"unix:group:{grp.getgrgid(gid).gr_name}",
        f"unix:path:{program}",
        f"unix:sha256:{hashlib.sha256(program.read_bytes()).hexdigest()}",
    }
    assert {f"unix:gid:{other}" for other in os.getgroups()} <= caller.selectors


def test_a_hash_is_made_only_where_one_is_wanted() -> None:
    with connected() as (connection, _):
        caller = identify(connection, dict, hashes=False)
    assert not [one for one in caller.selectors if one.startswith("unix:sha256:")]


def test_what_up_started_is_known_by_its_session() -> None:
    with connected(session=True) as (connection, process):
        start = began(process.pid)
        assert start is not None
        known = {"web-1": Started(process.pid, start), "web-2": Started(os.getpid(), 1)}
        assert "policyd:instance:web-1" in identify(connection, lambda: known, hashes=False).selectors


@pytest.mark.parametrize("change", [lambda pid, start: (pid, start + 1), lambda pid, start: (pid + 1, start)])
def test_another_process_with_its_number_is_not_taken_for_it(change: object) -> None:
    with connected(session=True) as (connection, process):
        start = began(process.pid)
        known = {"web-1": Started(*change(process.pid, start))}  # type: ignore[operator]
        found = identify(connection, lambda: known, hashes=False).selectors
    assert not [one for one in found if one.startswith("policyd:")]


def test_a_program_of_another_session_is_not_that_instance() -> None:
    with connected(session=True) as (_, started), connected(session=True) as (other, _process):
        start = began(started.pid)
        assert start is not None
        found = identify(other, lambda: {"web-1": Started(started.pid, start)}, hashes=False).selectors
    assert not [one for one in found if one.startswith("policyd:")]


def test_of_a_process_that_has_ended_nothing_is_believed_but_its_user() -> None:
    with connected(LEAVE, session=True) as (connection, process):
        process.wait(30)
        caller = identify(connection, lambda: {"web-1": Started(process.pid, 0)}, hashes=True)
    kinds = {one.rpartition(":")[0] for one in caller.selectors}
    assert kinds == {"unix:uid", "unix:gid", "unix:user", "unix:group"}


class OldKernel:
    """A socket of a kernel that has no SO_PEERPIDFD."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def getsockopt(self, level: int, option: int, size: int = 0, /) -> bytes | int:
        if not size:
            raise OSError(92, "Protocol not available")
        return self._connection.getsockopt(level, option, size)


def test_without_a_hold_on_the_process_only_its_user_is_believed() -> None:
    with connected() as (connection, _):
        caller = identify(OldKernel(connection), dict, hashes=True)
    assert not [one for one in caller.selectors if one.startswith(("unix:path", "unix:sha256", "policyd:"))]


def test_what_up_writes_its_agent_reads(tmp_path: Path) -> None:
    file = tmp_path / applications.FILE
    started = {"web-1": Started(7, 99), "api-1": Started(8, 100)}
    applications.write(file, started)
    assert applications.read(file) == started
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [b"", b"noise", b"[]", b'{"a": 1}', b'{"a": {"pid": 1}}', b'{"a": {"pid": "x", "began": 1}}', b"[" * 999]
)  # fmt: skip
def test_a_file_that_is_none_starts_nothing(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / applications.FILE
    file.write_bytes(content)
    file.chmod(0o600)
    assert applications.read(file) == {}


def test_a_file_that_others_may_write_or_a_link_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / applications.FILE
    assert applications.read(file) == {}
    file.write_text(json.dumps({"web-1": {"pid": 1, "began": 1}}))
    file.chmod(0o620)
    assert applications.read(file) == {}
    file.chmod(0o600)
    assert applications.read(file) != {}
    link = tmp_path / "link"
    link.symlink_to(file)
    assert applications.read(link) == {}
