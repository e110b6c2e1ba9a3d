"""The commands of the README and of the task pages, run in their order; what they print is what the pages say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.page import Run, Write, matches, steps, told
from tests.docs.shell import Shell
from tests.e2e.conftest import copy_of_bookinfo
from tests.e2e.terminal import wait_until_none_runs
from tests.ports import free_port
from tests.whole import put

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SAMPLES_PORT = "8080"  # which something else may have
SOON = 60.0  # seconds; only what fails waits so long
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "tasks").glob("*.md"))]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def parameters() -> Iterator[object]:
    for page in PAGES:
        needs = [pytest.mark.needs(tool) for tool in told(page.read_text(), "needs")]
        yield pytest.param(page, id=page.stem, marks=needs)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a reader is who has the sample's folder; nothing that was started there outlives the test.

    Its path is short, as a reader's: a socket has room for a hundred bytes.
    """
    with tempfile.TemporaryDirectory(prefix="page-", ignore_cleanup_errors=True) as name:
        work = Path(name)
        copy_of_bookinfo(work / "examples" / "bookinfo", ROOT)
        for example in ("observability", "grpc"):
            shutil.copytree(ROOT / "examples" / example, work / "examples" / example)
        yield work
        for state in list(work.rglob(".policyd")):
            subprocess.run([BIN / "policyd", "down", "--dir", state.parent], capture_output=True, timeout=60)


@pytest.mark.parametrize("page", list(parameters()))
def test_a_page_does_what_it_says(page: Path, folder: Path, tmp_path: Path) -> None:
    text = with_free_ports(page.read_text(), folder)
    # a console costs as much as a server to start; pages that show one have it
    console = "on" if "console" in text else "off"
    environ = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "POLICYD_CONSOLE": console}
    shell = Shell(folder, tmp_path, environ)
    try:
        cwd = folder
        for step in steps(text):
            if isinstance(step, Write):
                write(cwd / step.path, step.text)
            else:
                take(shell, step, page)
                cwd = Path(shell.run("pwd")[1].strip())
    finally:
        shell.close()

    wait_until_none_runs(folder)


def with_free_ports(text: str, folder: Path) -> str:
    """Put free ports in the place of those that the page names, and of the sample's own, in the sample's files too."""
    for port in dict.fromkeys([*told(text, "ports"), SAMPLES_PORT]):
        free = str(free_port())
        text = re.sub(rf"\b{port}\b", free, text)
        for file in (folder / "examples").rglob("*.yaml"):
            file.write_text(re.sub(rf"\b{port}\b", free, file.read_text()))
    return text


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    put(file, text)


def take(shell: Shell, step: Run, page: Path) -> None:
    """Run a step's commands; where the page says so, again until they print what it shows."""
    deadline = time.monotonic() + SOON
    while True:
        code, printed = shell.run(step.script)
        right = code == step.exit and (step.output is None or matches(step.output, printed))
        if right or not step.soon or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert right, (
        f"{page.name}:{step.line}: the page expects exit {step.exit}:\n{step.output}\nit was {code}:\n{printed}"
    )
