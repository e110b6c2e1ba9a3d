"""Login with an issuer: a provider over HTTP, with tokens that it signs; what is wrong with one opens nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from policyd import tickets
from policyd._pb import admin_pb2 as pb
from policyd.config.console import ConsoleSettings
from policyd.config.settings import parse_settings
from policyd.console.main import provider_of
from policyd.console.oidc import LOGIN_SECONDS, MAX_PENDING, LoginFailed, Logins, challenge_of, operator_of
from policyd.console.provider import Provider
from policyd.errors import InvalidInput, StateError
from tests.console.conftest import HOST, KEY, RULES, World, made
from tests.fakes.oidc_provider import CLIENT, SECRET, SUBJECT, goes_wrong, provider

LOGIN = f"{RULES.cookie}_login"
PAGE = {"accept": "text/html"}


@pytest.fixture(scope="module")
def running() -> Iterator[str]:
    """The issuer of a provider that runs."""
    with provider() as issuer:
        yield issuer


@pytest.fixture
def issuer(running: str) -> str:
    """The same, which does nothing wrong yet."""
    goes_wrong(running)
    return running


class Browser:
    """A browser that goes between a console and the issuer."""

    def __init__(self, world: World, issuer: str, secret: str = SECRET) -> None:
        self.seconds = int(time.time())
        known = Provider(issuer, CLIENT, secret, lambda: world.clock)
        app = made(world, provider=known, seconds=lambda: self.seconds)[0]
        self.console = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{HOST}", headers=PAGE)  # type: ignore[arg-type]

    async def begin(self) -> httpx.Response:
        """What the issuer's page answers."""
        begun = await self.console.get("/enter/oidc")
        assert begun.status_code == 303, begun.text
        async with httpx.AsyncClient(trust_env=False) as web:
            return await web.get(begun.headers["location"])

    async def login(self) -> httpx.Response:
        """The console's answer to who comes back."""
        there = await self.begin()
        assert there.status_code == 302
        return await self.console.get(there.headers["location"])


def who_visited(world: World) -> list[tuple[str, str]]:
    return [(one.who, one.operation) for name, one in world.fake.requests if name == "Visit" and one.operation]


async def test_who_logs_in_is_the_operator_of_issuer_and_subject(world: World, issuer: str) -> None:
    browser = Browser(world, issuer)
    assert f"Log in with {urlsplit(issuer).netloc}" in (await browser.console.get("/enter")).text

    opened = await browser.login()

    assert opened.status_code == 200
    assert who_visited(world) == [(f"oidc:{issuer}/{SUBJECT}", "console.open")]
    cookies = opened.headers.get_list("set-cookie")
    [session] = [one for one in cookies if one.startswith(f"{RULES.cookie}=")]
    assert all(part in session for part in ("HttpOnly", "SameSite=strict", "Path=/"))
    assert f"Max-Age={tickets.SESSION_SECONDS}" in session
    ticket = tickets.read(KEY, "session", browser.console.cookies[RULES.cookie].strip('"'), browser.seconds)
    assert ticket is not None
    assert ticket.who == f"oidc:{issuer}/{SUBJECT}"
    assert ticket.ends == browser.seconds + tickets.SESSION_SECONDS
    assert (await browser.console.get("/mesh")).status_code == 200
    browser.seconds += tickets.SESSION_SECONDS
    assert (await browser.console.get("/mesh")).status_code == 303


async def test_the_browser_is_sent_with_a_challenge_and_bound_by_a_cookie(world: World, issuer: str) -> None:
    begun = await Browser(world, issuer).console.get("/enter/oidc")

    asked = {name: values[0] for name, values in parse_qs(urlsplit(begun.headers["location"]).query).items()}
    assert {name: asked[name] for name in ("response_type", "client_id", "redirect_uri", "scope")} == {
        "response_type": "code", "client_id": CLIENT, "redirect_uri": f"http://{HOST}/enter/back", "scope": "openid",
    }  # fmt: skip
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == len(asked["state"]) == len(asked["nonce"]) == 43
    cookie = begun.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=lax", "Path=/enter", f"Max-Age={LOGIN_SECONDS}"))


def test_the_challenge_is_that_of_the_standard() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636, appendix B
    assert challenge_of(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


NOW = int(time.time())


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"claims": {"nonce": "another"}}, "is of another login"),
        ({"claims": {"nonce": None}}, "is of another login"),
        ({"claims": {"iss": "https://evil.example"}}, "is of another issuer"),
        ({"claims": {"aud": "somebody"}}, "is for somebody else"),
        ({"claims": {"aud": [CLIENT, "somebody"]}}, "is for somebody else"),
        ({"claims": {"aud": None}}, "is for somebody else"),
        ({"claims": {"azp": "somebody"}}, "is for somebody else"),
        ({"claims": {"exp": NOW - 3_600}}, "has ended"),
        ({"claims": {"exp": None}}, "has ended"),
        ({"claims": {"exp": "tomorrow"}}, "has ended"),
        ({"claims": {"iat": NOW + 86_400}}, "clocks differ"),
        ({"claims": {"iat": None}}, "clocks differ"),
        ({"claims": {"sub": None}}, "names nobody"),
        ({"claims": {"sub": ["x"]}}, "names nobody"),
        ({"claims": {"sub": "a~b"}}, "no operator"),
        ({"claims": {"sub": "a b"}}, "no operator"),
        ({"claims": {"sub": "a" * 300}}, "no operator"),
        ({"claims": {"sub": "\u202ea"}}, "no operator"),
        ({"key": "unpublished"}, "is not signed by a key"),
        ({"alg": "none"}, "is not signed by a key"),
        ({"alg": "HS256"}, "is not signed by a key"),
        ({"no_kid": True}, "is not signed by a key"),
        ({"back": {"code": "guessed"}}, "answers 400"),
        ({"back": {"error": "access_denied"}}, "access_denied"),
        ({"back": {"error": "<script>alert(1)</script>"}}, "says no"),
        ({"back": {"iss": "https://evil.example"}}, "it is another one"),
        ({"back": {"state": "another"}}, "not begun in this browser"),
        ({"broken": "/token"}, "answers 500"),
    ],
)
async def test_what_is_wrong_opens_nothing(world: World, issuer: str, wrong: dict[str, Any], why: str) -> None:
    goes_wrong(issuer, **wrong)
    browser = Browser(world, issuer)

    answer = await browser.login()

    assert answer.status_code == 403
    assert why in answer.text
    assert "<script>alert" not in answer.text
    assert RULES.cookie not in browser.console.cookies
    assert who_visited(world) == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"discovery": {"issuer": "https://evil.example"}}, "is of another issuer"),
        ({"discovery": {"token_endpoint": "http://evil.example/token"}}, "is no <code>https://</code> address"),
        ({"discovery": {"authorization_endpoint": "javascript:alert(1)"}}, "is no <code>https://</code> address"),
        ({"discovery": {"jwks_uri": None}}, "is no <code>https://</code> address"),
        ({"broken": "/.well-known/openid-configuration"}, "is no JSON"),
        ({"large": "/.well-known/openid-configuration"}, "is too large"),
        ({"broken": "/keys"}, "is no JSON"),
    ],
)
async def test_an_issuer_that_leads_elsewhere_is_not_followed(
    world: World, issuer: str, wrong: dict[str, Any], why: str
) -> None:
    goes_wrong(issuer, **wrong)
    answer = await Browser(world, issuer).console.get("/enter/oidc")

    assert answer.status_code == 502
    assert why in answer.text


async def test_an_issuer_that_does_not_answer_is_said_to(world: World) -> None:
    answer = await Browser(world, "http://127.0.0.1:1").console.get("/enter/oidc")  # where nothing may listen

    assert answer.status_code == 502
    assert "does not answer" in answer.text


async def test_keys_that_changed_meanwhile_are_asked_for_once_more(world: World, issuer: str) -> None:
    browser = Browser(world, issuer)
    assert (await browser.login()).status_code == 200
    goes_wrong(issuer, rotated=True)
    httpx.get(f"{issuer}/keys", trust_env=False)  # from now on it signs with another

    assert (await browser.login()).status_code == 200


async def test_an_elliptic_key_is_as_good_and_a_wrong_secret_is_none(world: World, issuer: str) -> None:
    goes_wrong(issuer, alg="ES256")
    assert (await Browser(world, issuer).login()).status_code == 200
    assert "answers 401" in (await Browser(world, issuer, "guess").login()).text
    assert "answers 401" in (await Browser(world, issuer, "").login()).text


async def test_a_login_ends_once_in_time_and_in_its_own_browser(world: World, issuer: str) -> None:
    first, other = Browser(world, issuer), Browser(world, issuer)
    there = (await first.begin()).headers["location"]
    other.console._transport = first.console._transport
    assert (await other.console.get(there)).status_code == 403, "without the cookie"
    other.console.cookies.set(LOGIN, "x" * 43)
    assert (await other.console.get(there)).status_code == 403, "with another cookie"
    assert (await first.console.get(there)).status_code == 200
    assert (await first.console.get(there)).status_code == 403, "again"
    late = (await first.begin()).headers["location"]
    first.seconds += LOGIN_SECONDS
    assert "took too long" in (await first.console.get(late)).text


async def test_whom_no_policy_lets_in_stays_outside(world: World, issuer: str) -> None:
    world.fake.replies["Visit"] = pb.VisitReply(allowed=False)
    browser = Browser(world, issuer)
    answer = await browser.login()

    assert answer.status_code == 403
    assert f"do not allow <code>oidc:{issuer}/{SUBJECT}</code>" in answer.text
    assert RULES.cookie not in browser.console.cookies


async def test_without_an_issuer_there_is_no_login(world: World) -> None:
    app = made(world)[0]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{HOST}") as client:  # type: ignore[arg-type]
        assert [(await client.get(path)).status_code for path in ("/enter/oidc", "/enter/back?code=1")] == [404, 404]
        assert "Log in" not in (await client.get("/enter")).text


async def test_logins_are_begun_slowly_and_many_that_never_end_are_given_up(world: World, issuer: str) -> None:
    browser = Browser(world, issuer)
    begun = [(await browser.console.get("/enter/oidc")).status_code for _ in range(7)]
    assert begun == [303] * 5 + [429] * 2
    count = iter(range(10 * MAX_PENDING))
    logins = Logins(lambda size: next(count).to_bytes(size, "big"))
    first, *_, last = (logins.begin("back", 0) for _ in range(MAX_PENDING + 1))
    assert logins.end(last.state, last.browser, 0) == last
    with pytest.raises(LoginFailed, match="not begun in this browser"):
        logins.end(first.state, first.browser, 0)


def test_an_operator_is_named_by_issuer_and_subject() -> None:
    assert operator_of("https://id.example", "7|x@y") == "oidc:https://id.example/7|x@y"


@pytest.mark.parametrize(
    "issuer",
    ["http://id.example", "id.example", "https://", "https://a:b@id.example", "https://id.example/?x=1", "https://i#f",
     "https://id.example/~ada", "https://" + "a" * 200, "https://[", "javascript:alert(1)", "https://id\u202e.example",
     "https://id\\evil.example"],
)  # fmt: skip
def test_an_issuer_is_named_by_https(issuer: str) -> None:
    with pytest.raises(InvalidInput, match="is no issuer"):
        parse_settings(f"console: {{oidc: {{issuer: {json.dumps(issuer)}, clientId: policyd}}}}\n")


def test_beyond_loopback_a_login_is_as_good_as_a_token() -> None:
    oidc = "oidc: {issuer: 'https://id.example', clientId: policyd}"
    with pytest.raises(InvalidInput, match="needs `tokenFile` or `oidc`"):
        parse_settings("console: {listen: '0.0.0.0:443', certificateFile: c, keyFile: k}\n")
    with pytest.raises(InvalidInput, match="needs `tokenFile` or `oidc`"):
        parse_settings(f"console: {{listen: '0.0.0.0:443', {oidc}}}\n")
    found = parse_settings(f"console: {{listen: '0.0.0.0:443', certificateFile: c, keyFile: k, {oidc}}}\n").console
    assert found.oidc is not None
    assert found.oidc.issuer == "https://id.example"


def test_the_secret_is_of_a_private_file(tmp_path: Any) -> None:
    oidc = {"issuer": "https://id.example", "clientId": "policyd", "clientSecretFile": "secret"}
    settings = ConsoleSettings.model_validate({"oidc": oidc})
    file = tmp_path / "secret"
    with pytest.raises(StateError, match=r"cannot be read.*console\.oidc\.clientSecretFile"):
        provider_of(settings, tmp_path)
    file.write_text("hush\n")
    file.chmod(0o644)
    with pytest.raises(StateError, match="others may read"):
        provider_of(settings, tmp_path)
    file.chmod(0o600)
    found = provider_of(settings, tmp_path)
    assert found is not None
    assert (found.issuer, found.client_id, found.secret) == ("https://id.example", "policyd", "hush")
    assert "hush" not in repr(found)
    assert provider_of(ConsoleSettings(), tmp_path) is None
