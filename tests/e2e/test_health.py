"""An instance that does not answer its probe is taken out, and comes back, through real agents and Envoys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.terminal import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("health")]

WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80, command: [python, echo.py]}
  api-v1: {service: api, port: 80, command: [python, echo.py], labels: {version: v1}}
  api-v2: {service: api, port: 80, command: [python, echo.py], labels: {version: v2}}
"""
POLICY = '@id("all") permit (principal, action in Action::"http", resource);\n'
GROUPS = """\
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: v1}
spec:
  metadata: {labels: {app: api, version: v1}}
  probe: {periodSeconds: 1, timeoutSeconds: 9, failureThreshold: 2, httpGet: {port: 80, path: /status/200}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: v2}
spec:
  metadata: {labels: {app: api, version: v2}}
  probe:
    periodSeconds: 1
    timeoutSeconds: 9  # a busy machine starts programs slowly
    failureThreshold: 2
    successThreshold: 2
    exec: {command: [test, -e, serving]}
"""


@pytest.fixture(scope="module")
def mesh(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A service of two instances: one is asked by HTTP, the other by a command."""
    directory = tmp_path_factory.mktemp("health") / "mesh"
    for folder in ("mesh", "policies"):
        (directory / folder).mkdir(parents=True)
    shutil.copy(root / "tests" / "e2e" / "echo.py", directory)
    (directory / "workloads.yaml").write_text(WORKLOADS)
    (directory / "policies" / "all.cedar").write_text(POLICY)
    (directory / "mesh" / "groups.yaml").write_text(GROUPS)
    (directory / "serving").touch()
    try:
        yield up(directory)
    finally:
        down(directory)


def answering(mesh: RunningMesh) -> set[str]:
    """Who answers ten requests, of which none fails."""
    with mesh.client("web-v1") as client:
        answers = [client.get("http://api/") for _ in range(10)]
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    return {json.loads(answer.text)["instance"] for answer in answers}


def wait_for(mesh: RunningMesh, *instances: str) -> None:
    wait_until(lambda: answering(mesh) == set(instances), 60, lambda: json.dumps(mesh.status()))


def test_an_instance_that_fails_is_taken_out_and_comes_back(mesh: RunningMesh) -> None:
    wait_for(mesh, "api-v1", "api-v2")
    assert mesh.place("api-v2")["health"] == "healthy"
    (mesh.directory / "serving").unlink()
    wait_for(mesh, "api-v1")
    assert mesh.place("api-v2")["health"] == "the command ended with 1"
    (mesh.directory / "serving").touch()
    wait_for(mesh, "api-v1", "api-v2")


def test_a_probe_that_changes_is_asked_from_then_on(mesh: RunningMesh) -> None:
    file = mesh.directory / "mesh" / "groups.yaml"
    wait_for(mesh, "api-v1", "api-v2")
    file.write_text(GROUPS.replace("/status/200", "/status/503"))
    wait_for(mesh, "api-v2")
    assert mesh.place("api-v1")["health"] == "the answer is 503"
    file.write_text(GROUPS)
    wait_for(mesh, "api-v1", "api-v2")


def test_without_a_probe_nobody_is_taken_out(mesh: RunningMesh) -> None:
    file = mesh.directory / "mesh" / "groups.yaml"
    (mesh.directory / "serving").unlink()
    wait_for(mesh, "api-v1")
    file.write_text(GROUPS.partition("---")[0])
    wait_for(mesh, "api-v1", "api-v2")
    assert mesh.place("api-v2")["health"] == ""
    (mesh.directory / "serving").touch()
    file.write_text(GROUPS)
    wait_for(mesh, "api-v1", "api-v2")


def test_a_probe_that_is_new_takes_nobody_out(mesh: RunningMesh) -> None:
    """From before policyd knows of it until the application was asked by it, as its own count of questions shows."""
    file = mesh.directory / "mesh" / "groups.yaml"
    file.write_text("---\n")
    wait_until(lambda: mesh.place("api-v1")["health"] == mesh.place("api-v2")["health"] == "", 60)
    file.write_text(
        GROUPS.replace("/status/200", "/fresh").replace(
            "failureThreshold", "initialDelaySeconds: 1, failureThreshold", 1
        )
    )
    asked = 0

    def is_probed() -> bool:
        nonlocal asked
        answer = client.get("http://api/fresh")
        assert answer.status_code == 200, answer.text
        told = answer.json()
        asked += told["instance"] == "api-v1"
        return told["instance"] == "api-v1" and told["times"] > asked

    with mesh.client("web-v1") as client:
        wait_until(is_probed, 60)
    file.write_text(GROUPS)
    wait_for(mesh, "api-v1", "api-v2")
