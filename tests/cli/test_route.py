"""`policyd route`: what is printed, and the exit code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from policyd.cli.exits import Exit
from tests.cli.conftest import Said

BY_USER = """\
productpage-v1 is asked for GET http://reviews/reviews/0
  route     VirtualService default/reviews, rule 1, match 1 (mesh/reviews-by-user.yaml:8)
  patience  no timeout, 2 retries on connect-failure,refused-stream,unavailable,cancelled
  100 %     to reviews.default:9080, subset v2
    over      mutual TLS with spiffe://cluster.local/ns/default/sa/bookinfo-reviews
    at        reviews-v2
    reviews-v2
      decision  allow for spiffe://cluster.local/ns/default/sa/bookinfo-productpage: permitted by \
`reviews-from-productpage` (policies/reviews.cedar:2)
      to        the application

it gets through
"""
DENIED = """\
reviews-v1 is asked for GET http://details/details/0
  route     no rule of a VirtualService
  patience  no timeout, 2 retries on connect-failure,refused-stream,unavailable,cancelled
  100 %     to details.default:9080
    over      mutual TLS with spiffe://cluster.local/ns/default/sa/bookinfo-details
    at        details-v1
    details-v1
      decision  deny for spiffe://cluster.local/ns/default/sa/bookinfo-reviews: no policy permits `bookinfo-reviews` \
GET /details/0 on `details`
                would be allowed with the caller `bookinfo-productpage` (by `details-from-productpage`)

deny
"""
LOST = """\
ratings-v1 is asked for GET http://nowhere.example.com/
  route     no rule of a VirtualService
  answer    502: no service of this mesh has that name

it leads nowhere
"""
FAULT = "  faults    100 % wait 7s\n"


@pytest.fixture
def bookinfo(root: Path, tmp_path: Path) -> Path:
    """The sample, with rules by user and faults."""
    target = tmp_path / "bookinfo"
    skip = shutil.ignore_patterns(".policyd", "bookinfo", "__pycache__")
    shutil.copytree(root / "examples" / "bookinfo", target, ignore=skip)
    for name in ("subsets", "reviews-by-user", "ratings-delay"):
        shutil.copy(target / "tasks" / f"{name}.yaml", target / "mesh")
    return target


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (("productpage", "GET", "http://reviews/reviews/0", "-H", "end-user: jason"), Said(Exit.OK, BY_USER, "")),
        (("reviews-v1", "GET", "http://details/details/0"), Said(Exit.DENIED, DENIED, "")),
        (("ratings", "GET", "http://nowhere.example.com/"), Said(Exit.ERROR, LOST, "")),
    ],
)
def test_a_way_is_printed(
    policyd: Callable[..., Said], bookinfo: Path, request_: tuple[str, ...], expected: Said
) -> None:
    assert policyd("route", *request_, "--dir", bookinfo) == expected


def test_faults_are_printed(policyd: Callable[..., Said], bookinfo: Path) -> None:
    request_ = ("reviews-v2", "GET", "http://ratings/ratings/0", "-H", "end-user: jason")

    assert FAULT in policyd("route", *request_, "--dir", bookinfo).out


def test_a_way_as_json(policyd: Callable[..., Said], bookinfo: Path) -> None:
    said = policyd("route", "productpage", "GET", "http://reviews/reviews/0", "--dir", bookinfo, "--json")
    way = said.value["way"]
    (destination,) = way["destinations"]
    (arrival,) = destination["arrives"]

    assert (said.code, said.value["outcome"], way["instances"]) == (Exit.OK, "through", ["productpage-v1"])
    assert way["rule"] == {
        "kind": "VirtualService", "resource": "default/reviews", "rule": 2, "match": 0, "name": "",
        "file": "mesh/reviews-by-user.yaml", "line": 10,
    }  # fmt: skip
    assert (destination["service"], destination["subset"], destination["percent"]) == ("reviews.default", "v1", 100)
    assert arrival["decision"]["reasons"] == [
        {"id": "reviews-from-productpage", "file": "policies/reviews.cedar", "line": 2}
    ]


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (("nobody", "GET", "http://reviews/"), Exit.INVALID, "error: `nobody` is nobody in the mesh\n"),
        (("productpage", "GET", "reviews"), Exit.INVALID, "error: `reviews` is no URL of the mesh\n"),
        (("productpage", "GET", "http://reviews/", "-H", "x"), Exit.USAGE, "error: `x` is no header\n"),
    ],
)
def test_what_means_nothing_is_refused(
    policyd: Callable[..., Said], bookinfo: Path, request_: tuple[str, ...], code: Exit, message: str
) -> None:
    said = policyd("route", *request_, "--dir", bookinfo)

    assert (said.code, said.out) == (code, "")
    assert said.err.startswith(message)
