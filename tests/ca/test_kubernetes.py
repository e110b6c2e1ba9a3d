"""A pod's token counts if a cluster vouches for it, for us and for now; one thing wrong a row, each by its name."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from policyd.ca.cluster_keys import ClusterKeys
from policyd.ca.kubernetes import ByKeys, ByReview
from policyd.ca.web import Service
from policyd.errors import IdentityError
from policyd.svid import jose
from tests.ca.machines import ISSUER, Cluster
from tests.ca.samples import NOW, a_key
from tests.ca.test_signing_service import certificate, secret
from tests.fakes.signing_service import SigningServer, reply

POD = ("k8s:ns:shop", "k8s:sa:reviews", "k8s:pod:reviews-7d9")
CLUSTER = Cluster()
SECOND = int(NOW.timestamp())


def by_keys(keys: Callable[[], bytes] = CLUSTER.keys) -> ByKeys:
    return ByKeys(ISSUER, "policyd", keys)


def test_a_good_token_says_which_pod_bears_it() -> None:
    assert by_keys().selectors(CLUSTER.token(), NOW) == POD
    assert by_keys().selectors(CLUSTER.token(aud="policyd"), NOW) == POD


def test_a_token_of_no_pod_says_its_account() -> None:
    said = {"namespace": "shop", "serviceaccount": {"name": "reviews"}}
    assert by_keys().selectors(CLUSTER.token(**{"kubernetes.io": said}), NOW) == POD[:2]


def unsigned() -> str:
    header = jose.encode(b'{"alg":"none","kid":"k1"}')
    return f"{header}.{jose.encode(jose.write_object(CLUSTER.claims()))}."


def by_secret() -> str:
    """Signed with the published key as if it were a shared secret."""
    return CLUSTER.token({"alg": "HS256"})


def forged() -> str:
    head, _, signature = CLUSTER.token().split(".")
    return (
        f"{head}.{jose.encode(jose.write_object(CLUSTER.claims(sub='system:serviceaccount:shop:admin')))}.{signature}"
    )


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (unsigned, "is not accepted"),
        (by_secret, "is not accepted"),
        (forged, "not signed with that key"),
        (lambda: Cluster().token(), "not signed with that key"),
        (lambda: CLUSTER.token({"kid": "k2"}), "a key that the cluster does not publish"),
        (lambda: CLUSTER.token({"kid": None}), "does not say which key"),
        (lambda: CLUSTER.token({"crit": ["x"]}), "does not say which key"),
        (lambda: CLUSTER.token(iss="https://elsewhere"), "another issuer's"),
        (lambda: CLUSTER.token(iss=None), "another issuer's"),
        (lambda: CLUSTER.token(aud=["vault"]), "another audience"),
        (lambda: CLUSTER.token(aud=None), "another audience"),
        (lambda: CLUSTER.token(exp=SECOND), "the token ended at"),
        (lambda: CLUSTER.token(exp=None), "has no `exp`"),
        (lambda: CLUSTER.token(exp=True), "has no `exp`"),
        (lambda: CLUSTER.token(exp=1e300), "is no time"),
        (lambda: CLUSTER.token(exp=10**400), "is no time"),
        (lambda: CLUSTER.token(nbf=SECOND + 60), "the token begins at"),
        (lambda: CLUSTER.token(sub="system:serviceaccount:shop:admin"), "not what it says of its pod"),
        (lambda: CLUSTER.token(sub="system:node:n1", **{"kubernetes.io": {}}), "not what it says of its pod"),
        (lambda: CLUSTER.token(**{"kubernetes.io": None}), "no projected one"),
        (lambda: "a.b", "three parts"),
        (lambda: "x" * 20_000, "at most"),
    ],
)
def test_a_token_that_proves_nothing_is_refused(token: Callable[[], str], why: str) -> None:
    with pytest.raises(IdentityError, match=why):
        by_keys().selectors(token(), NOW)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (b"", "no JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "no key set"),
        (json.dumps({"keys": [{}] * 65}).encode(), "no key set"),
        (b'{"keys": []}', "does not publish"),
        (json.dumps({"keys": json.loads(CLUSTER.keys())["keys"] * 2}).encode(), "does not publish"),
        (CLUSTER.keys(use="enc"), "does not publish"),
        (CLUSTER.keys(kty="oct", k="AAAA"), "is not accepted"),
    ],
)
def test_keys_that_are_none_vouch_for_nobody(keys: bytes, why: str) -> None:
    with pytest.raises(IdentityError, match=why):
        by_keys(lambda: keys).selectors(CLUSTER.token(), NOW)


# ---- keys at a URL


def test_keys_are_fetched_over_tls_and_the_last_good_ones_hold(tmp_path: Path) -> None:
    roots, tls = certificate(tmp_path)
    second = [0.0]
    with SigningServer(a_key(), tls=tls) as server:
        keys = ClusterKeys(Service(server.url, roots=roots), lambda: second[0])
        server.answer = lambda handler, _: reply(handler, 200, CLUSTER.keys())
        assert by_keys(keys).selectors(CLUSTER.token(), NOW) == POD
        by_keys(keys).selectors(CLUSTER.token(), NOW)
        assert len(server.asked) == 1
        second[0] += 301
        server.answer = lambda handler, _: reply(handler, 500, b"")
        assert by_keys(keys).selectors(CLUSTER.token(), NOW) == POD
        assert len(server.asked) == 2
        second[0] += 86_400
        with pytest.raises(IdentityError, match="answers 500"):
            keys()


@pytest.mark.parametrize("body", [b"", b"{}", b'{"keys": 1}', b"[" * 100_000, b"x" * 1_000_000])
def test_what_a_cluster_publishes_instead_of_keys_is_refused(body: bytes) -> None:
    with SigningServer(a_key()) as server:
        server.answer = lambda handler, _: reply(handler, 200, body)
        with pytest.raises(IdentityError):
            ClusterKeys(Service(server.url), lambda: 0.0)()


# ---- TokenReview


def review(**status: Any) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    """An API server that answers so."""
    user = {
        "username": "system:serviceaccount:shop:reviews",
        "extra": {"authentication.kubernetes.io/pod-name": ["reviews-7d9"]},
    }
    good = {"authenticated": True, "audiences": ["policyd"], "user": user}

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        asked = json.loads(body)
        assert (asked["kind"], asked["spec"]["audiences"]) == ("TokenReview", ["policyd"])
        assert handler.headers["Authorization"] == "Bearer s3cret"
        reply(handler, 201, json.dumps({**asked, "status": good | status}).encode())

    return answer


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return certificate(tmp_path_factory.mktemp("tls"))


def reviewed(
    tmp_path: Path,
    tls: tuple[Path, ssl.SSLContext],
    answer: Callable[[BaseHTTPRequestHandler, bytes], None],
    token: str,
) -> tuple[str, ...]:
    roots, context = tls
    with SigningServer(a_key(), tls=context) as server:
        server.answer = answer
        return ByReview("policyd", Service(server.url, secret(tmp_path), roots)).selectors(token, NOW)


def test_a_cluster_s_review_says_which_pod_bears_a_token(tmp_path: Path, tls: tuple[Path, ssl.SSLContext]) -> None:
    assert reviewed(tmp_path, tls, review(), CLUSTER.token()) == POD


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (review(authenticated=False), "does not accept the token"),
        (review(authenticated="true"), "does not accept the token"),
        (review(error="token expired"), "does not accept the token"),
        (review(audiences=["vault"]), "another audience"),
        (review(audiences=None), "another audience"),
        (review(user=None), "whose the token is"),
        (review(user={"username": "system:node:n1"}), "no service account's"),
        (review(user={"username": "system:serviceaccount:a:b:c"}), "no service account's"),
        (lambda handler, _: reply(handler, 403, b"forbidden"), "answers 403: forbidden"),
        (lambda handler, _: reply(handler, 200, b"{}"), "does not accept the token"),
        (lambda handler, _: reply(handler, 200, b"<html>"), "no JSON"),
        (lambda handler, _: reply(handler, 200, b'{"status": {' + b'"a": 1, ' * 100_000), "no JSON"),
    ],
)
def test_a_review_that_says_no_or_nothing_is_a_no(
    tmp_path: Path,
    tls: tuple[Path, ssl.SSLContext],
    answer: Callable[[BaseHTTPRequestHandler, bytes], None],
    why: str,
) -> None:
    with pytest.raises(IdentityError, match=why):
        reviewed(tmp_path, tls, answer, CLUSTER.token())


def test_what_is_no_token_is_shown_to_no_cluster(tmp_path: Path) -> None:
    with SigningServer(a_key()) as server:
        with pytest.raises(IdentityError, match="three parts"):
            ByReview("policyd", Service(server.url, secret(tmp_path))).selectors("password", NOW)
        assert server.asked == []


def test_a_token_has_not_begun_or_is_over_by_a_second() -> None:
    ends = NOW + timedelta(hours=1)
    assert by_keys().selectors(CLUSTER.token(), ends - timedelta(seconds=1)) == POD
    with pytest.raises(IdentityError, match="ended"):
        by_keys().selectors(CLUSTER.token(), ends)
