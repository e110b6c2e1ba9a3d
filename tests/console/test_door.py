"""The door: no page without a session, no action without its proof, no foreign name, nothing without limits."""

from __future__ import annotations

import httpx
import pytest

from policyd import tickets
from policyd.console.app import ACTIONS, PAGES, STREAMS
from policyd.console.desk import HERE, static
from policyd.console.door import MAX_BODY, POLICY
from tests.console.conftest import HOST, KEY, RULES, SECONDS, Console, World, made

EVERY = [path.replace("{id}", "0000") for path in (*PAGES, *STREAMS)]
CHECK = "/policies/playground/check"
DRAFT = {"file": "policies/details.cedar", "text": ""}


@pytest.fixture
async def stranger(world: World) -> httpx.AsyncClient:
    """A browser without a session."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(made(world)[0]), base_url=f"http://{HOST}")  # type: ignore[arg-type]


@pytest.mark.parametrize("path", EVERY)
async def test_without_a_session_there_is_no_page(stranger: httpx.AsyncClient, path: str) -> None:
    asked = await stranger.get(path, headers={"accept": "text/html"})
    scripted = await stranger.get(path)

    assert (asked.status_code, asked.headers["location"]) == (303, "/enter")
    assert scripted.status_code == 401
    assert "bookinfo" not in scripted.text


@pytest.mark.parametrize("path", ACTIONS)
async def test_without_a_session_nothing_is_done(stranger: httpx.AsyncClient, path: str) -> None:
    assert (await stranger.post(path, json=DRAFT, headers={"origin": f"http://{HOST}"})).status_code == 401


@pytest.mark.parametrize(
    "session",
    [
        "",
        "nonsense",
        tickets.link(KEY, "unix:0", SECONDS, b"n" * 16),
        tickets.session(b"x" * 32, "unix:0", SECONDS, b"n" * 16),
        tickets.session(KEY, "unix:0", SECONDS - tickets.SESSION_SECONDS, b"n" * 16),
    ],
    ids=["none", "nonsense", "a link", "of another key", "ended"],
)
async def test_what_is_no_session_opens_nothing(stranger: httpx.AsyncClient, session: str) -> None:
    assert (await stranger.get("/", headers={"cookie": f"{RULES.cookie}={session}"})).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:80", f"{HOST}.evil.example", "localhost", ""])
@pytest.mark.parametrize("path", ["/", "/enter", static("console.css"), "/live/decisions"])
async def test_a_foreign_name_is_refused_before_anything_is_looked_at(console: Console, host: str, path: str) -> None:
    answer = await console.get(path, host=host)

    assert answer.status_code == 421
    assert answer.headers["content-security-policy"] == POLICY


async def test_our_other_names_are_ours(console: Console) -> None:
    assert (await console.get("/mesh", host="LOCALHOST:15080")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"origin": "http://evil.example"}, "another page"),
        ({"origin": "null"}, "another page"),
        ({"origin": ""}, "another page"),
        ({"origin": f"https://{HOST}"}, "another page"),
        ({"x-policyd-proof": ""}, "lacks the proof"),
        ({"x-policyd-proof": "0" * 64}, "lacks the proof"),
    ],
)
async def test_an_action_comes_from_a_page_of_ours(console: Console, headers: dict[str, str], why: str) -> None:
    assert (await console.post(CHECK, DRAFT)).status_code == 200
    answer = await console.post(CHECK, DRAFT, **headers)

    assert answer.status_code == 403
    assert why in answer.text


async def test_what_is_too_large_is_refused_whether_it_says_so_or_not(console: Console) -> None:
    async def chunks():  # type: ignore[no-untyped-def]
        for _ in range(3):
            yield b" " * (MAX_BODY // 2)

    headers = {"origin": f"http://{HOST}", "x-policyd-proof": console.proof}
    for content in (b" " * (MAX_BODY + 1), chunks()):
        assert (await console.client.post(CHECK, content=content, headers=headers)).status_code == 413
    assert (await console.get("/decisions?path=" + "a" * 9_000)).status_code == 414


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
async def test_other_methods_are_none(console: Console, method: str) -> None:
    assert (await console.client.request(method, "/")).status_code == 405


@pytest.mark.parametrize(
    "path",
    ["/", "/enter", "/nowhere", static("console.js"), static("nothing"), "/static/old/console.js", "/decisions/x"],
)
async def test_every_answer_keeps_a_browser_to_this_origin(console: Console, path: str) -> None:
    answer = await console.get(path)
    headers = answer.headers

    assert headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    is_kept = path.startswith("/static/") and answer.status_code == 200
    assert headers["cache-control"] == ("public, max-age=31536000, immutable" if is_kept else "no-store")


async def test_our_files_import_nothing_but_our_files_of_the_same_version(console: Console) -> None:
    scripts = sorted((HERE / "static").glob("*.js"))
    for script in scripts:
        for line in script.read_text(encoding="utf-8").splitlines():
            if line.startswith("import "):
                found = line.rsplit('"', 2)[1]
                assert found.startswith("./"), (script.name, found)
                assert (await console.get(static(found.removeprefix("./")))).status_code == 200, (script.name, found)
    assert {"console.js", "dom.js"} <= {script.name for script in scripts}


async def test_files_beside_ours_are_not_served(console: Console) -> None:
    ours = static("")
    ways = ("../door.py", "%2e%2e/door.py", "..%2fdoor.py", "/etc/passwd")
    for path in (*(f"/static/{way}" for way in ways), *(f"{ours}{way}" for way in ways), f"{ours}../../door.py"):
        assert (await console.get(path)).status_code == 404
