"""Bookinfo in a real mesh: what is allowed works in full, and nothing else does."""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import RunningMesh
from tests.e2e.terminal import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("mesh")]


def test_the_page_works_in_full(mesh: RunningMesh) -> None:
    page = mesh.get("/productpage")

    assert page.status_code == 200
    for text in ("The Comedy of Errors", "William Shakespeare", "Reviews served by"):
        assert text in page.text
    assert "Error fetching" not in page.text


def test_reviews_change_between_no_stars_black_and_red(mesh: RunningMesh) -> None:
    seen: set[str] = set()

    def all_versions() -> bool:
        reply = mesh.get("/api/v1/products/0/reviews")
        if reply.status_code != 503:  # where a busy machine was too late to decide about one hop
            seen.add(reply.json()["podname"])
        return len(seen) == 3

    wait_until(all_versions, 20, lambda: f"only {seen}")
    assert seen == {"reviews-v1", "reviews-v2", "reviews-v3"}


def test_a_workload_without_a_permit_is_denied_and_the_record_says_so(mesh: RunningMesh) -> None:
    with mesh.client("reviews-v1") as reviews:
        reply = reviews.get("http://details:9080/details/0")

    assert (reply.status_code, reply.headers["content-type"]) == (403, "text/plain")
    record = mesh.record(reply.headers["x-policyd-decision-id"])
    assert {key: record.get(key) for key in ("decision", "principal", "action", "resource", "reasons")} == {
        "decision": "deny",
        "principal": 'Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-reviews"',
        "action": 'Action::"GET"',
        "resource": 'Service::"details.default"',
        "reasons": None,
    }


def test_a_denial_tells_the_caller_nothing_of_the_policies(mesh: RunningMesh) -> None:
    with mesh.client("reviews-v1") as reviews:
        body = reviews.get("http://details:9080/details/0").text

    assert len(body) < 200
    assert not re.search(r"permit|forbid|spiffe|bookinfo", body)


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "POST", "PROPFIND"])
def test_nobody_changes_reviews(mesh: RunningMesh, method: str) -> None:
    with mesh.client("productpage-v1") as page:
        assert page.request(method, "http://reviews:9080/reviews/0").status_code == 403


@pytest.mark.parametrize(
    "host", ["reviews", "reviews:9080", "reviews.default", "reviews.default.svc.cluster.local", "REVIEWS.default:9080"]
)
def test_a_service_answers_to_all_its_names(mesh: RunningMesh, host: str) -> None:
    with mesh.client("productpage-v1") as page:
        assert page.get(f"http://{host}/reviews/0").status_code == 200


def test_an_unknown_name_is_not_routed(mesh: RunningMesh) -> None:
    with mesh.client("productpage-v1") as page:
        assert page.get("http://nowhere.example/").status_code == 502


def test_the_resource_is_the_listener_never_the_host_header(mesh: RunningMesh) -> None:
    """A caller that may ask ratings gains nothing at details by naming ratings."""
    details = mesh.place("details-v1")["inbound_port"]
    with mesh.client("reviews-v1") as reviews:
        reply = reviews.get("http://details:9080/details/0", headers={"x-forwarded-host": "ratings"})

    assert details
    assert reply.status_code == 403


def test_the_proxy_of_a_workload_opens_to_its_secret_only(mesh: RunningMesh) -> None:
    place = mesh.place("productpage-v1")
    closed = f"http://127.0.0.1:{place['outbound_port']}"

    for proxy in (closed, closed.replace("//", "//productpage-v1:wrong@"), closed.replace("//", "//reviews-v1:x@")):
        with httpx.Client(proxy=proxy, trust_env=False) as stranger:
            assert stranger.get("http://reviews:9080/reviews/0").status_code == 401


def test_the_secret_does_not_reach_the_application_behind(mesh: RunningMesh) -> None:
    secret = mesh.place("reviews-v1")["proxy_url"].partition("//")[2].partition("@")[0].partition(":")[2]

    files = [file for file in (mesh.directory / ".policyd" / "journal").rglob("*") if file.is_file()]

    assert files
    assert all(secret not in file.read_text() for file in files)


def test_a_stranger_without_a_certificate_is_not_even_heard(mesh: RunningMesh) -> None:
    port = mesh.place("details-v1")["inbound_port"]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def ask() -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname="details") as wrapped,
        ):
            wrapped.sendall(b"GET /details/0 HTTP/1.1\r\nHost: details\r\n\r\n")
            return wrapped.recv(1000)

    # in TLS 1.3 the server's refusal arrives with the first read, as an alert or as the end of the connection
    with pytest.raises(ssl.SSLError):
        ask()


def test_plain_http_is_not_heard_either(mesh: RunningMesh) -> None:
    port = mesh.place("details-v1")["inbound_port"]

    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/details/0")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/productpage", 200),
        ("/nothing-here", 404),
        ("/productpage;x=1", 400),
        ("/product%2Fpage", 400),
        ("/a%00b", 400),
        ("//productpage", 200),
        ("/x/../productpage", 200),
    ],
)
def test_a_path_has_one_form(mesh: RunningMesh, path: str, status: int) -> None:
    port = int(mesh.gateway.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: mesh\r\nConnection: close\r\n\r\n".encode())
        answer = raw.makefile("rb").readline()

    assert int(answer.split()[1]) == status


def test_identity_headers_of_a_caller_are_not_believed(mesh: RunningMesh) -> None:
    claim = "By=spiffe://cluster.local/ns/default/sa/bookinfo-details;URI=spiffe://cluster.local/ns/default/sa/bookinfo-productpage"
    with mesh.client("reviews-v1") as reviews:
        reply = reviews.get("http://details:9080/details/0", headers={"x-forwarded-client-cert": claim})

    assert reply.status_code == 403


def test_all_proxies_hold_what_they_were_sent(mesh: RunningMesh) -> None:
    proxies = mesh.says("proxy", "status")["proxies"]

    assert sorted(proxy["instance"] for proxy in proxies) == [
        "details-v1",
        "ingress",
        "productpage-v1",
        "ratings-v1",
        "reviews-v1",
        "reviews-v2",
        "reviews-v3",
    ]
    assert {kind["state"] for proxy in proxies for kind in proxy["types"]} == {"synced"}


def test_the_journal_is_whole(mesh: RunningMesh) -> None:
    mesh.get("/productpage")

    assert mesh.says("log", "verify")["whole"] is True


def test_readiness_and_metrics_are_on_loopback(mesh: RunningMesh) -> None:
    address = mesh.status()["http_address"]

    assert httpx.get(f"http://{address}/readyz").status_code == 200
    assert 'policyd_decisions_total{decision="allow"' in httpx.get(f"http://{address}/metrics").text
    assert httpx.get(f"http://{address}/metrics", headers={"host": "evil.example"}).status_code >= 400


def test_state_and_sockets_are_their_owners_alone(mesh: RunningMesh) -> None:
    state = mesh.directory / ".policyd"
    open_to_others = [
        path for path in [state, *state.rglob("*")] if path.stat().st_mode & 0o077 and not path.is_symlink()
    ]

    assert open_to_others == [] or all(path.parent.stat().st_mode & 0o077 == 0 for path in open_to_others)
    assert state.stat().st_mode & 0o777 == 0o700
    assert isinstance(state, Path)
