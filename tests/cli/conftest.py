"""A folder whose server is the fake one, and the command line as a function."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from policyd.cli.main import run
from tests.fakes.admin import FakeAdmin, serving


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """Its JSON."""
        return json.loads(self.out)


@pytest.fixture
def policyd(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command line in this process."""

    def command(*words: object) -> Said:
        capsys.readouterr()
        code = run([str(word) for word in words])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an empty state folder."""
    made = tmp_path / "mesh"
    (made / ".policyd").mkdir(parents=True, mode=0o700)
    return made


@pytest.fixture
def fake(folder: Path) -> Iterator[FakeAdmin]:
    """A server for `folder`, which answers what it is told to."""
    with tempfile.TemporaryDirectory(prefix="t") as short:  # socket paths end at 107 bytes
        socket = Path(short) / "admin.sock"
        (folder / ".policyd" / "server.json").write_text(json.dumps({"pid": 4711, "admin_socket": str(socket)}))
        with serving(FakeAdmin(), socket) as admin:
            yield admin
