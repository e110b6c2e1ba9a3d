"""One `up` a folder, and `down` ends exactly that."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from policyd._pb import admin_pb2 as pb
from policyd.cli.exits import Exit
from policyd.errors import StateError
from policyd.instance import UP_FILE, alone, is_held
from tests.cli.conftest import Said
from tests.fakes.admin import FakeAdmin

HOLDER = """
import json, os, signal, sys, time
from pathlib import Path
from policyd.instance import alone
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with alone(Path(sys.argv[1])):
    Path(sys.argv[1], ".policyd", "up.json").write_text(json.dumps({"pid": os.getpid()}))
    print("held", flush=True)
    try:
        while True: time.sleep(9)
    finally:
        time.sleep(0.2)
"""


def test_a_folder_is_held_by_one_only(folder: Path) -> None:
    assert not is_held(folder)
    with alone(folder):
        assert is_held(folder)
        with pytest.raises(StateError) as caught, alone(folder):
            pass
    assert not is_held(folder)
    assert str(caught.value) == f"`{folder}` is up already; end it with `policyd down --dir {folder}`"


def test_down_ends_the_one_that_holds_the_folder_and_waits(policyd: Callable[..., Said], folder: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        said = policyd("down", "--dir", folder)

        assert said == Said(Exit.OK, f"ended what ran for `{folder}`\n", "")
        assert holder.wait(5) == 0
    finally:
        holder.kill()
        holder.communicate()


def test_down_where_nothing_runs_says_so(policyd: Callable[..., Said], folder: Path) -> None:
    (folder / ".policyd" / UP_FILE).write_text(json.dumps({"pid": 1}))  # of one that was killed

    assert policyd("down", folder) == Said(Exit.OK, f"nothing was running for `{folder}`\n", "")
    assert policyd("down", "--dir", folder, "--json").value == {"ended": False}


def test_down_ends_a_server_that_was_started_alone(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    gone = threading.Event()

    def shutdown(_request: pb.ShutdownRequest) -> pb.ShutdownReply:
        (folder / ".policyd" / "server.json").unlink()
        gone.set()
        return pb.ShutdownReply()

    fake.replies["Shutdown"] = shutdown

    assert policyd("down", "--dir", folder, "--json").value == {"ended": True}
    assert gone.is_set()


def test_a_broken_server_file_is_an_error_with_a_remedy(policyd: Callable[..., Said], folder: Path) -> None:
    (folder / ".policyd" / "server.json").write_text("{")

    said = policyd("status", "--dir", folder)

    assert said.code == Exit.ERROR
    assert said.err.endswith("  run `policyd down`\n")
