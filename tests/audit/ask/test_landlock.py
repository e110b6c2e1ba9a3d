"""What a process can still do once it has shut itself in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from policyd.audit.ask import landlock

PROGRAM = """\
import json, socket, sys
from policyd.audit.ask import landlock

def tried(call):
    try:
        call()
    except OSError as error:
        return type(error).__name__
    return "done"

listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen()
readable, other, new = sys.argv[1:]
shut = landlock.shut([readable, "/nowhere/at/all"])
import wave  # code that was not loaded yet
print(json.dumps([
    shut,
    tried(lambda: open(readable).read()),
    tried(lambda: open(readable, "a")),
    tried(lambda: open(other).read()),
    tried(lambda: open("/etc/passwd").read()),
    tried(lambda: open(new, "w")),
    tried(lambda: socket.create_connection(listening.getsockname())),
]))
"""


def test_it_reads_what_it_was_given_and_code_and_nothing_else(tmp_path: Path) -> None:
    readable, other, new = tmp_path / "copy", tmp_path / "other", tmp_path / "new"
    readable.write_text("a")
    other.write_text("b")
    command = [sys.executable, "-I", "-c", PROGRAM, *map(str, (readable, other, new))]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if not landlock.version():
        assert said == [False, *["done"] * 6]
        return
    refused = "PermissionError"
    network = refused if landlock.version() >= 4 else "done"
    assert said == [True, "done", refused, refused, refused, refused, network]
    assert (readable.read_text(), new.exists()) == ("a", False)
