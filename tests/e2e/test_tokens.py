"""End users by token, through real Envoys: what is verified reaches policies and nothing else makes a user."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.terminal import wait_until
from tests.e2e.wire import records
from tests.fakes.issuer import Issuer, signed
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("tokens")]

LOGIN = Issuer("https://login.example.com", "RSA", "EC", "OKP")
PARTNER = Issuer("https://partner.example", "EC")
REMOTE = Issuer("https://remote.example", "EC")
DISCOVERED = Issuer("where it publishes", "EC")
STRANGER = Issuer("https://stranger.example", "EC")
WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80, command: [python, mirror.py]}
  api-v1: {service: api, port: 80, command: [python, mirror.py]}
gateways:
  ingress: {listen: 8080}
"""
GROUPS = """\
groups:
  staff: {users: [https://login.example.com/bob]}
"""
POLICIES = """\
@id("open") permit (principal, action in Action::"http", resource) when { context.request.path == "/open" };
@id("users") permit (principal, action in Action::"http", resource)
when { context.request.path == "/me" && context has user };
@id("editors") permit (principal, action in Action::"http", resource)
when { context.request.path == "/edit" && context has user && context.user.issuer == "https://login.example.com" &&
       context.user.hasTag("realm.roles") && context.user.getTag("realm.roles").contains("editor") };
@id("readers") permit (principal, action in Action::"http", resource)
when { context.request.path == "/read" && context has user &&
       context.user.hasTag("scope") && context.user.getTag("scope").contains("read") };
@id("staff") permit (principal, action in Action::"http", resource)
when { context.request.path == "/staff" && context has user && context.user in Group::"staff" };
"""
ROUTES = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: door}
spec:
  hosts: ["*"]
  gateways: [door]
  http:
    - match: [{headers: {"@request.auth.claims[realm][roles]": {exact: editor}}}]
      route: [{destination: {host: api}, headers: {response: {set: {x-way: editors}}}}]
    - match: [{headers: {"@request.auth.claims.scope": {exact: write}}}]
      route: [{destination: {host: api}, headers: {response: {set: {x-way: writers}}}}]
    - match: [{withoutHeaders: {"@request.auth.claims.sub": {}}}]
      route: [{destination: {host: api}, headers: {response: {set: {x-way: nobody}}}}]
    - route: [{destination: {host: api}, headers: {response: {set: {x-way: others}}}}]
"""
TOKENS = f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people}}
spec:
  jwtRules:
    - issuer: {LOGIN.name}
      audiences: [api]
      jwks: '{LOGIN.jwks}'
      forwardOriginalToken: true
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: partners}}
spec:
  selector: {{matchLabels: {{app: api}}}}
  jwtRules:
    - issuer: {PARTNER.name}
      jwksUri: jwks/partner.json
      fromHeaders: [{{name: X-Token, prefix: "Token "}}]
      fromParams: [token]
      fromCookies: [session]
      outputPayloadToHeader: x-payload
      outputClaimToHeaders: [{{header: x-who, claim: sub}}, {{header: x-team, claim: org.team}}]
    - issuer: {REMOTE.name}
      jwksUri: REMOTE/keys
    - issuer: REMOTE
"""


@contextmanager
def published(text: str) -> Iterator[str]:
    """Where an issuer publishes its keys."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here = f"http://127.0.0.1:{server.server_address[1]}"
            found = {"/keys": text, "/own": DISCOVERED.jwks}
            found["/.well-known/openid-configuration"] = json.dumps({"issuer": here, "jwks_uri": f"{here}/own"})
            self.send_response(200)
            self.end_headers()
            self.wfile.write(found[self.path].encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def mesh(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A mesh whose gateway believes one issuer and whose `api` believes three."""
    directory = tmp_path_factory.mktemp("tokens") / "mesh"
    for folder in ("mesh", "policies", "jwks"):
        (directory / folder).mkdir(parents=True)
    shutil.copy(root / "tests" / "e2e" / "apps" / "mirror.py", directory)
    port = str(free_port())
    (directory / "workloads.yaml").write_text(WORKLOADS.replace("8080", port))
    (directory / "groups.yaml").write_text(GROUPS)
    (directory / "policies" / "api.cedar").write_text(POLICIES)
    (directory / "jwks" / "partner.json").write_text(PARTNER.jwks)
    (directory / "mesh" / "routes.yaml").write_text(ROUTES.replace("8080", port))
    with published(REMOTE.jwks) as uri:
        (directory / "mesh" / "tokens.yaml").write_text(TOKENS.replace("REMOTE", uri))
        DISCOVERED.name = uri
        try:
            yield up(directory)
        finally:
            down(directory)


@pytest.fixture
def web(mesh: RunningMesh) -> Iterator[httpx.Client]:
    """An HTTP client that speaks as `web` does."""
    with mesh.client("web-v1") as client:
        yield client


def good(subject: str = "alice", **claims: Any) -> str:
    return LOGIN.token(subject, **{"aud": "api", **claims})


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


# ---- who is a user


@pytest.mark.parametrize("kid", ["rsa-1", "ec-1", "okp-1"])
def test_a_good_token_makes_its_user_known(web: httpx.Client, kid: str) -> None:
    assert web.get("http://api/me", headers=bearer(good(kid=kid))).status_code == 200


def test_without_a_token_a_request_is_anonymous(web: httpx.Client) -> None:
    assert web.get("http://api/open").status_code == 200
    assert web.get("http://api/me").status_code == 403


@pytest.mark.parametrize(
    ("path", "claims", "status"),
    [
        ("/edit", {"realm": {"roles": ["reader", "editor"]}}, 200),
        ("/edit", {"realm": {"roles": ["reader"]}}, 403),
        ("/edit", {"realm": {"roles": "editor"}}, 200),
        ("/edit", {"realm": ["editor"]}, 403),
        ("/edit", {}, 403),
        ("/read", {"scope": "read write"}, 200),
        ("/read", {"scope": "readwrite"}, 403),
        ("/staff", {"groups": ["staff"]}, 403),
    ],
)
def test_policies_decide_by_claims(web: httpx.Client, path: str, claims: dict[str, Any], status: int) -> None:
    assert web.get(f"http://api{path}", headers=bearer(good(**claims))).status_code == status


def test_groups_of_users_are_the_operators_own(web: httpx.Client) -> None:
    assert web.get("http://api/staff", headers=bearer(good("bob"))).status_code == 200


# ---- what is no token


@dataclass(frozen=True, slots=True)
class Forger:
    """Somebody who has the public keys of an issuer, and tokens of one's own."""

    def rsa_pem(self) -> bytes:
        half = LOGIN.keys["rsa-1"].public_key()
        return half.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def claims(self) -> dict[str, Any]:
        return LOGIN.claims("alice", aud="api")

    def tampered(self) -> str:
        header, _, signature = good().split(".")
        body = base64.urlsafe_b64encode(json.dumps({**self.claims(), "sub": "bob"}).encode()).rstrip(b"=").decode()
        return f"{header}.{body}.{signature}"


FORGER = Forger()
BAD = {
    "expired": good(lasts=-3600),
    "not yet valid": good(nbf=4_000_000_000),
    "for others": good(aud="other"),
    "for nobody": LOGIN.token("alice"),
    "of a stranger": STRANGER.token("alice", aud="api"),
    "of a stranger in the issuer's name": signed(
        {"alg": "ES256", "kid": "ec-1"}, FORGER.claims(), STRANGER.keys["ec-1"]
    ),
    "with an unknown key": signed({"alg": "ES256", "kid": "new"}, FORGER.claims(), LOGIN.keys["ec-1"]),
    "with no signature": signed({"alg": "none"}, FORGER.claims(), None),
    "with no signature, None": signed({"alg": "None", "kid": "ec-1"}, FORGER.claims(), None),
    "signed with the public key": signed({"alg": "HS256", "kid": "rsa-1"}, FORGER.claims(), FORGER.rsa_pem()),
    "signed with the key's number": signed({"alg": "HS256"}, FORGER.claims(), LOGIN.jwks.encode()),
    "of another algorithm": signed({"alg": "ES256", "kid": "rsa-1"}, FORGER.claims(), LOGIN.keys["ec-1"]),
    "tampered with": FORGER.tampered(),
    "not one": "a.b.c",
    "half of one": good().rpartition(".")[0],
    "without a user": LOGIN.token(None, aud="api"),
    "with an empty user": good(""),
    "with a number that no proxy can tell": good(id=2**60),
    "with one name for two claims": good(**{"a.b": 1, "a": {"b": 2}}),
}


@pytest.mark.parametrize("token", BAD.values(), ids=BAD.keys())
def test_a_bad_token_is_401_even_where_none_is_needed(web: httpx.Client, token: str) -> None:
    assert web.get("http://api/open", headers=bearer(token)).status_code == 401


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("expired", "Envoy refused the token: Jwt is expired"),
        ("of a stranger", "Envoy refused the token: Jwt issuer is not configured"),
        ("for others", "Envoy refused the token: Audiences in Jwt are not allowed"),
        ("without a user", "the token names no user (`sub`)"),
    ],
)
def test_a_refused_token_is_on_record_by_the_id_in_the_answer(
    mesh: RunningMesh, web: httpx.Client, bad: str, why: str
) -> None:
    """By policyd's own id where it was asked, else by that of the Envoy that refused it before."""
    reply = web.get("http://api/open?a=secret", headers=bearer(BAD[bad]) | {"x-request-id": f"why-{bad}"})
    id_ = reply.headers["x-policyd-decision-id"]
    assert (reply.status_code, reply.headers.get_list("x-policyd-decision-id")) == (401, [id_])

    def kept() -> list[dict[str, Any]]:
        return records(mesh.directory, decision_id=id_)

    wait_until(lambda: bool(kept()), 20, lambda: "no record")
    [record] = kept()
    assert (record["kind"], record["decision"], record["status"], record["proxy"]) == (
        "decision", "deny", 401, "api-v1",
    )  # fmt: skip
    assert (record["principal"], record["resource"]) == (
        'Workload::"spiffe://cluster.local/ns/default/sa/web"',
        'Service::"api.default"',
    )
    assert record["errors"] == [{"source": "unacceptable_token", "message": why}]
    assert record["context"]["request"] == {"method": "GET", "host": "api", "path": "/open"}
    assert mesh.record(id_)["decision_id"] == id_


def test_at_a_gateway_a_refused_token_is_on_record_too(mesh: RunningMesh) -> None:
    reply = mesh.get("/me", **bearer(BAD["expired"]), **{"x-policyd-decision-id": "forged"})
    id_ = reply.headers["x-policyd-decision-id"]

    wait_until(lambda: bool(records(mesh.directory, decision_id=id_)), 20, lambda: "no record")
    [record] = records(mesh.directory, decision_id=id_)
    assert (reply.status_code, record["principal"], record["resource"]) == (
        401, 'Unauthenticated::"anonymous"', 'Service::"ingress.default"',
    )  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Basic YWxpY2U6c2VjcmV0"},
        {"x-payload": base64.b64encode(b'{"sub":"alice"}').decode(), "x-who": "alice"},
        {"x-envoy-peer-metadata": "envoy.filters.http.jwt_authn"},
        {"x-jwt-assertion": "alice"},
    ],
)
def test_no_header_makes_a_user(web: httpx.Client, headers: dict[str, str]) -> None:
    assert web.get("http://api/open", headers=headers).status_code == 200
    assert web.get("http://api/me", headers=headers).status_code == 403


def test_two_users_are_none(web: httpx.Client) -> None:
    both = bearer(good()) | {"x-token": f"Token {PARTNER.token('carol')}"}

    assert web.get("http://api/open", headers=both).status_code == 401


@pytest.mark.parametrize("bad", ["expired", "tampered with", "with an unknown key"])
def test_a_good_token_does_not_make_up_for_a_bad_one(web: httpx.Client, bad: str) -> None:
    reply = web.get("http://api/open", params={"access_token": BAD[bad]}, headers=bearer(good()))

    assert reply.status_code == 401


# ---- where tokens stand, and what the application gets


@pytest.mark.parametrize(
    ("where", "status"),
    [
        ({"headers": {"x-token": "Token TOKEN"}}, 200),
        ({"headers": {"x-token": "TOKEN"}}, 403),
        ({"params": {"token": "TOKEN"}}, 200),
        ({"headers": {"cookie": "session=TOKEN"}}, 200),
        ({"headers": {"authorization": "Bearer TOKEN"}}, 401),
        ({"params": {"access_token": "TOKEN"}}, 401),
    ],
    ids=["header", "header without its prefix", "parameter", "cookie", "not in authorization", "not in access_token"],
)
def test_a_token_counts_where_its_rule_says(web: httpx.Client, where: dict[str, Any], status: int) -> None:
    token = PARTNER.token("carol")
    asked = {kind: {name: text.replace("TOKEN", token) for name, text in of.items()} for kind, of in where.items()}

    assert web.get("http://api/me", **asked).status_code == status


def test_a_token_may_stand_in_the_query(web: httpx.Client) -> None:
    assert web.get("http://api/me", params={"access_token": good()}).status_code == 200


def test_the_application_gets_claims_and_no_token(web: httpx.Client) -> None:
    token = PARTNER.token("carol", org={"team": "blue"})
    seen = web.get("http://api/me?a=1", headers={"x-token": f"Token {token}", "x-who": "eve"}).json()

    assert "x-token" not in seen["headers"]
    assert (seen["headers"]["x-who"], seen["headers"]["x-team"]) == ("carol", "blue")
    payload = seen["headers"]["x-payload"]
    assert json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"] == "carol"

    in_query = web.get("http://api/me", params={"a": "1", "token": token}).json()
    assert in_query["path"] == "/me?a=1"


def test_what_tells_a_claim_is_the_filters_alone(web: httpx.Client) -> None:
    seen = web.get("http://api/open", headers={"x-who": "eve", "x-team": "red", "x-payload": "e30"}).json()

    assert not {"x-who", "x-team", "x-payload"} & seen["headers"].keys()


def test_a_token_is_passed_on_where_its_rule_says_so(web: httpx.Client) -> None:
    token = good()

    assert web.get("http://api/me", headers=bearer(token)).json()["headers"]["authorization"] == f"Bearer {token}"


# ---- keys that are fetched, gateways, other workloads


def test_keys_are_fetched_from_where_the_issuer_publishes_them(mesh: RunningMesh, web: httpx.Client) -> None:
    token = REMOTE.token("dave")

    wait_until(lambda: web.get("http://api/me", headers=bearer(token)).status_code == 200, 15, lambda: "no keys")
    metrics = httpx.get(f"http://{mesh.status()['http_address']}/metrics").text
    assert 'policyd_key_fetches_total{outcome="new"} 2.0' in metrics
    assert [file.stat().st_mode & 0o777 for file in (mesh.directory / ".policyd" / "jwks").iterdir()] == [0o600] * 2


def test_an_issuer_is_asked_where_its_keys_are(web: httpx.Client) -> None:
    token = DISCOVERED.token("erin")

    wait_until(lambda: web.get("http://api/me", headers=bearer(token)).status_code == 200, 15, lambda: "no keys")
    assert web.get("http://api/me", headers=bearer(STRANGER.token("erin", iss=DISCOVERED.name))).status_code == 401


@pytest.mark.parametrize(
    ("claims", "way"),
    [
        ({"realm": {"roles": ["viewer", "editor"]}}, "editors"),
        ({"realm": {"roles": "editor"}}, "editors"),
        ({"realm": {"roles": ["editors"]}}, "others"),
        ({"scope": "read write"}, "writers"),
        ({"scope": "read overwrite"}, "others"),
        ({"role": "editor"}, "others"),
        (None, "nobody"),
    ],
)
def test_a_gateway_routes_by_verified_claims(mesh: RunningMesh, claims: dict[str, Any] | None, way: str) -> None:
    headers = bearer(good(**claims)) if claims is not None else {}
    answer = mesh.get("/open", **headers)
    assert (answer.status_code, answer.headers["x-way"]) == (200, way)


def test_a_token_that_does_not_hold_is_no_claim(mesh: RunningMesh) -> None:
    stolen = STRANGER.token("alice", iss=LOGIN.name, aud="api", realm={"roles": ["editor"]})
    answer = mesh.get("/open", **bearer(stolen))
    assert (answer.status_code, answer.headers["x-way"]) == (401, "nobody")


def test_a_gateway_decides_by_the_same_user_and_the_next_hop_again(mesh: RunningMesh) -> None:
    assert mesh.get("/me").status_code == 403
    assert mesh.get("/me", **bearer(good())).status_code == 200
    assert mesh.get("/me", **bearer(BAD["expired"])).status_code == 401


def test_a_workload_that_believes_nobody_else_refuses_their_tokens(mesh: RunningMesh) -> None:
    with mesh.client("api-v1") as api:
        assert api.get("http://web/open", headers=bearer(REMOTE.token("dave"))).status_code == 401
        assert api.get("http://web/me", headers=bearer(good())).status_code == 200


# ---- on record


def test_the_journal_has_the_user_and_read_claims_and_never_a_token(mesh: RunningMesh, web: httpx.Client) -> None:
    token = good("erin", realm={"roles": ["editor"]}, email="erin@example.com")
    web.get("http://api/edit", headers=bearer(token))
    web.get("http://api/edit", params={"access_token": token})

    *_, record = [one for one in records(mesh.directory, proxy="api-v1") if "erin" in json.dumps(one)]
    assert record["context"]["user"] == {
        "__entity": {"type": "User", "id": f"{LOGIN.name}/erin"},
        "issuer": LOGIN.name,
        "claims": {"realm.roles": ["editor"]},
    }
    journal = "".join(file.read_text() for file in (mesh.directory / ".policyd" / "journal").glob("*.jsonl"))
    assert "erin@example.com" not in journal
    assert not any(part in journal for part in token.split("."))


def test_offline_a_user_is_decided_as_online(mesh: RunningMesh) -> None:
    asked = ("authorize", "web", "GET", "http://api/edit", "--user", f"{LOGIN.name}/alice", "--claim")

    assert mesh.says(*asked, "realm.roles=editor")["decision"] == "allow"
