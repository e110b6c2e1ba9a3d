"""Policies tried on a real mesh, behind real Envoys: not one answer changes, and the report names all that would."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import PROGRAM, RunningMesh
from tests.e2e.terminal import wait_until
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("mesh")]

ACCOUNT = "spiffe://cluster.local/ns/default/sa/bookinfo-"
TRIED = """\
@id("frozen") @shadow
forbid (principal is Workload, action in Action::"http", resource == Service::"reviews.default");

@id("open-details") @shadow
permit (principal, action in Action::"http", resource == Service::"details.default");

@id("overflows") @shadow
forbid (principal, action in Action::"http", resource == Service::"ratings.default")
when { context.request.segments * 9223372036854775807 > 0 };
"""


@pytest.fixture(scope="module")
def since() -> str:
    """When this trial began, as `--since` takes it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


@pytest.fixture(scope="module")
def tried(mesh: RunningMesh, since: str) -> Iterator[Path]:
    """The session's mesh with policies to try, and without them afterwards."""
    file = mesh.directory / "policies" / "tried.cedar"
    put(file, TRIED)
    try:
        wait_until(lambda: "shadow" in mesh.status(), 20)
        yield file
    finally:
        file.unlink()
        wait_until(lambda: "shadow" not in mesh.status(), 20)


def report(mesh: RunningMesh, since: str) -> tuple[int, Any]:
    words = ["policy", "shadow-report", "--dir", str(mesh.directory), "--since", since, "--json"]
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_whatever_is_tried_the_page_works_in_full_and_the_denied_stay_denied(
    mesh: RunningMesh, tried: Path, since: str
) -> None:
    page = mesh.get("/productpage")
    with mesh.client("productpage-v1") as productpage:
        reviews = productpage.get("http://reviews:9080/reviews/0")
        ratings = productpage.get("http://ratings:9080/ratings/0")
    with mesh.client("reviews-v1") as caller:
        details = caller.get("http://details:9080/details/0")

    assert [reply.status_code for reply in (page, reviews, ratings, details)] == [200, 200, 200, 403]
    assert "Error fetching" not in page.text
    record = mesh.record(details.headers["x-policyd-decision-id"])
    assert (record["decision"], record["shadow"]["decision"], record["shadow"]["reasons"]) == (
        "deny", "allow", ["open-details"],
    )  # fmt: skip

    code, found = report(mesh, since)
    assert code == 2
    rows = {(row["change"], row["principal"], row["resource"]): row for row in found["changes"]}
    denied = rows["would_deny", f'Workload::"{ACCOUNT}productpage"', 'Service::"reviews.default"']
    assert (denied["shadow"], denied["active"], denied["count"] >= 2) == (
        ["frozen"], ["reviews-from-productpage"], True,
    )  # fmt: skip
    failed = rows["would_deny", f'Workload::"{ACCOUNT}productpage"', 'Service::"ratings.default"']
    assert (failed["shadow"], [one["source"] for one in found["failing"]]) == (["overflows"], ["overflows"])
    allowed = rows["would_allow", f'Workload::"{ACCOUNT}reviews"', 'Service::"details.default"']
    assert (allowed["shadow"], allowed["active"]) == (["open-details"], [""])
    assert mesh.record(allowed["example"]["decision_id"])["status"] == 403


def test_the_trial_is_counted_and_its_revision_shown(mesh: RunningMesh, tried: Path) -> None:
    mesh.get("/productpage")
    status = mesh.status()
    metrics = httpx.get(f"http://{status['http_address']}/metrics").text

    assert (status["policies"], status["shadow"]["policies"], status["shadow"]["folder"]) == (5, 8, "")
    assert status["shadow"]["revision"] not in ("", status["revision"])
    for change in ("agree", "would_deny"):
        name = f'policyd_shadow_decisions_total{{change="{change}"}}'
        [line] = [one for one in metrics.splitlines() if one.startswith(name)]
        assert float(line.split()[-1]) > 0


def test_a_trial_that_does_not_load_is_refused_by_its_line_and_the_last_one_goes_on(
    mesh: RunningMesh, tried: Path
) -> None:
    before = mesh.status()["shadow"]["revision"]
    put(tried, TRIED.replace("forbid (principal is Workload", "forbid (principal is Wrkload"))
    wait_until(lambda: mesh.status()["refused"], 20)
    refused = mesh.status()

    assert {(one["file"], one["line"]) for one in refused["refused"]} == {("policies/tried.cedar", 2)}
    assert refused["shadow"]["revision"] == before
    assert mesh.get("/productpage").status_code == 200
    put(tried, TRIED)
    wait_until(lambda: not mesh.status()["refused"], 20)
