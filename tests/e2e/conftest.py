"""A real mesh, up: one for the tests that only look, and fresh folders for those that change or break it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from policyd.cli.show import as_dict
from policyd.instance import server

PROGRAM = str(Path(sys.executable).parent / "policyd")
collect_ignore = [] if shutil.which("jaeger") else ["test_jaeger.py"]  # which no package of CI's has


class Patient(httpx.HTTPTransport):
    """Asks again, a few times, where a busy machine was too late to decide: that is 503 without a word, and no answer.

    A lost route, instance or connection has words, and is what it is.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for _ in range(5):
            response = super().handle_request(request)
            if response.status_code != 503 or response.read():
                break
        return response


@dataclass(frozen=True, slots=True)
class RunningMesh:
    """A folder whose mesh is up."""

    directory: Path
    metrics: str = ""  # where Prometheus finds them

    def says(self, *words: str) -> Any:
        """What a command answers with --json."""
        done = subprocess.run(
            [PROGRAM, *words, "--dir", str(self.directory), "--json"], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def status(self) -> dict[str, Any]:
        """What `policyd status --json` says, without a process: hundreds of tests ask."""
        with server(self.directory) as client:
            reply, places = client.status(), client.instances()
        return as_dict(reply) | {"instances": [as_dict(place) for place in places]}

    def place(self, instance: str) -> dict[str, Any]:
        """Where an instance is."""
        [found] = [place for place in self.status()["instances"] if place["name"] == instance]
        return found

    @property
    def gateway(self) -> str:
        """The address of the gateway's only port."""
        return f"http://127.0.0.1:{self.place('ingress')['listens'][0]['actual']}"

    def client(self, instance: str, *, patient: bool = True) -> httpx.Client:
        """An HTTP client that speaks as `instance` does: through its sidecar's proxy.

        Who counts what every single request is answered, or promises that none fails, is not `patient`.
        """
        transport = Patient if patient else httpx.HTTPTransport
        proxy = httpx.Proxy(self.place(instance)["proxy_url"])
        return httpx.Client(transport=transport(proxy=proxy), trust_env=False, timeout=20)

    def outside(self) -> httpx.Client:
        """An HTTP client that speaks to the gateway, and is patient."""
        return httpx.Client(transport=Patient(), base_url=self.gateway, trust_env=False, timeout=20)

    def get(self, path: str, **headers: str) -> httpx.Response:
        """What the gateway answers."""
        with self.outside() as client:
            return client.get(path, headers=headers)

    def records(self, proxy: str | None = None) -> list[dict[str, Any]]:
        """The journal's records, all or those for one proxy; a line that is being written is none yet."""
        files = sorted((self.directory / ".policyd" / "journal").glob("*.jsonl"))
        lines = (line for file in files for line in file.read_bytes().split(b"\n")[:-1])
        every = [json.loads(line) for line in lines]
        return [record for record in every if proxy in (None, record.get("proxy"))]

    def record(self, decision_id: str) -> dict[str, Any]:
        """The journal's record of a decision."""
        found = [record for record in self.records() if record.get("decision_id") == decision_id]
        assert found, f"no record of decision {decision_id}"
        return found[0]


def copy_of_bookinfo(target: Path, root: Path) -> Path:
    """A private copy of the sample's folder, without state."""
    shutil.copytree(root / "examples" / "bookinfo", target, ignore=shutil.ignore_patterns(".policyd", "__pycache__"))
    return target


def up(directory: Path) -> RunningMesh:
    """Bring the folder's mesh up; `down` must follow."""
    done = subprocess.run(
        [PROGRAM, "up", str(directory), "--detach", "--no-console"], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [metrics] = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("metrics ")]
    return RunningMesh(directory, metrics)


def down(directory: Path) -> None:
    """End it."""
    subprocess.run([PROGRAM, "down", "--dir", str(directory)], check=True, capture_output=True, timeout=60)


@contextmanager
def meshed(directory: Path, files: Mapping[str, str]) -> Iterator[RunningMesh]:
    """A folder of these files, its mesh up as long as the block runs."""
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    try:
        yield up(directory)
    finally:
        down(directory)


@pytest.fixture(scope="session")
def mesh(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """Bookinfo, up for the whole session; leave it as you found it."""
    directory = copy_of_bookinfo(tmp_path_factory.mktemp("mesh") / "bookinfo", root)
    try:
        yield up(directory)
    finally:
        down(directory)


@pytest.fixture
def bookinfo(root: Path, tmp_path: Path) -> Path:
    """A copy of the sample's folder for one test."""
    return copy_of_bookinfo(tmp_path / "bookinfo", root)
