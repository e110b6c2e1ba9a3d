"""The playground: a draft is checked, asked and replayed over what is in force, and changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from policyd._pb import admin_pb2 as pb
from policyd.amend import hash_of
from policyd.console.playground import MAX_TEXT
from policyd.sources.files import read_folder
from tests.console.conftest import Console, World, check_harmless, opened
from tests.console.test_pages import HOSTILE

FILE = "policies/details.cedar"
OPEN = '@id("details-from-all")\npermit (principal, action, resource == Service::"details.default");\n'
REQUEST = "reviews-v1 GET http://details/details/0"


def url(what: str) -> str:
    return f"/policies/playground/{what}"


async def test_a_draft_is_checked_line_by_line(console: Console, world: World) -> None:
    good = (await console.post(url("check"), {"file": FILE, "text": OPEN})).json()["findings"]
    bad = (await console.post(url("check"), {"file": FILE, "text": OPEN + "permit (principal"})).json()["findings"]
    typed = (await console.post(url("check"), {"file": FILE, "text": OPEN.replace("details.default", "nope.x")})).json()

    assert [one for one in good if one["severity"] == "error"] == []
    assert [(one["severity"], one["line"]) for one in bad][:1] == [("error", 3)]
    assert any("nope.x" in one["message"] for one in typed["findings"])


async def test_a_request_is_decided_in_force_and_under_the_draft(console: Console, world: World) -> None:
    before = read_folder(world.folder).digest
    answer = await console.post(url("decide"), {"file": FILE, "text": OPEN, "request": REQUEST})

    page = check_harmless(answer.text)
    assert page.text.startswith("in force deny → with this draft allow changes")
    assert "permitted by details-from-all" in page.text
    assert read_folder(world.folder).digest == before


async def test_recorded_requests_are_decided_again(console: Console) -> None:
    value = {"file": FILE, "text": OPEN, "since": "7d"}
    page = check_harmless((await console.post(url("replay"), value)).text)
    same = {"file": "policies/new.cedar", "text": "", "since": "7d"}

    assert "change" in page.text
    assert "details-from-all" in page.text
    assert "none changes" in (await console.post(url("replay"), same)).text


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"file": FILE, "text": "permit (", "request": REQUEST}, "policies/details.cedar:1"),
        ({"file": FILE, "text": OPEN, "request": "nonsense"}, "FROM METHOD URL"),
        ({"file": FILE, "text": OPEN, "request": ""}, "FROM METHOD URL"),
        ({"file": FILE, "text": OPEN, "request": "nobody GET http://details/"}, "nobody"),
        ({"file": FILE, "text": OPEN, "request": REQUEST, "headers": "no header"}, "is no header"),
        ({"file": "../etc/passwd", "text": OPEN, "request": REQUEST}, "is no file of policies"),
        ({"file": "policies/../x.cedar", "text": OPEN, "request": REQUEST}, "is no file of policies"),
        ({"file": FILE, "text": "x" * (MAX_TEXT + 1), "request": REQUEST}, "at most 256 KiB"),
        ({"file": FILE, "request": REQUEST}, "has a file and a text"),
        ({"file": 1, "text": [], "request": REQUEST}, "has a file and a text"),
        ([], "has a file and a text"),
        ({"file": HOSTILE, "text": HOSTILE, "request": HOSTILE}, "evil.example"),
        ({"file": FILE, "text": f'@id("a") permit(principal, action, resource) when {{ "{HOSTILE}" }};',
          "request": REQUEST}, "policies/details.cedar"),
    ],
)  # fmt: skip
async def test_what_cannot_be_decided_is_told(console: Console, value: Any, why: str) -> None:
    answer = await console.post(url("decide"), value)

    assert answer.status_code == 400
    assert why in check_harmless(answer.text).text


async def test_what_is_no_json_is_no_draft(console: Console) -> None:
    headers = {"origin": "http://127.0.0.1:15080", "x-policyd-proof": console.proof}
    for body in (b"", b"{", b"[" * 100_000, b"\xff"):
        assert (await console.client.post(url("check"), content=body, headers=headers)).status_code == 400


async def test_who_decides_and_replays_is_decided_and_on_record(console: Console, world: World) -> None:
    await console.post(url("decide"), {"file": FILE, "text": OPEN, "request": REQUEST})
    await console.post(url("replay"), {"file": FILE, "text": OPEN, "since": "15m"})
    asked = [request for name, request in world.fake.requests if name == "Visit" and request.operation]
    assert [(one.act, one.operation) for one in asked] == [("explain", "console.decide"), ("explain", "console.replay")]

    world.fake.failures["Visit"] = (grpc.StatusCode.FAILED_PRECONDITION, "the journal is full")
    answer = await console.post(url("decide"), {"file": FILE, "text": OPEN, "request": REQUEST})
    assert answer.status_code == 400
    assert "the journal is full" in answer.text


# ---- apply

HALF = "\ud800"  # of a character, which JSON can name
DRAFT = {"file": FILE, "text": OPEN, "before": "0a" * 32}


@pytest.fixture
async def switched_on(world: World) -> AsyncIterator[Console]:
    """The console of a folder whose settings let it apply."""
    async for one in opened(world, applies=True):
        yield one


async def test_a_draft_is_enforced_by_the_server_for_who_asks(switched_on: Console, world: World) -> None:
    page = check_harmless((await switched_on.get(f"/policies/playground?file={FILE}")).text)
    [before] = page.of("textarea", "data-before")
    assert before == hash_of((world.folder / FILE).read_text())
    assert "apply" in page.of("button", "id")

    answer = check_harmless((await switched_on.post(url("apply"), DRAFT)).text)

    asked = [request for name, request in world.fake.requests if name == "ApplyPolicies"]
    assert asked == [pb.ApplyPoliciesRequest(who="unix:0", file=FILE, text=OPEN, before="0a" * 32)]
    assert f"{FILE} is enforced, under revision 471147114711" in answer.text


async def test_nothing_is_enforced_where_it_is_not_switched_on(console: Console, world: World) -> None:
    assert "apply" not in check_harmless((await console.get("/policies/playground")).text).of("button", "id")
    answer = await console.post(url("apply"), DRAFT)

    assert answer.status_code == 400
    assert "nothing is enforced from here" in answer.text
    assert [name for name, _ in world.fake.requests if name == "ApplyPolicies"] == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"before": None}, "nothing is enforced from here"),
        ({"file": "operators.cedar"}, "is no file of policies"),
        ({"text": HALF}, "halves of characters"),
        ({"file": f"policies/{HALF}.cedar"}, "halves of characters"),
        ({"text": 7}, "has a file and a text"),
    ],
)
async def test_what_is_no_draft_is_not_sent_on(
    switched_on: Console, world: World, change: dict[str, Any], why: str
) -> None:
    answer = await switched_on.post(url("apply"), DRAFT | change)

    assert answer.status_code == 400
    assert why in check_harmless(answer.text).text
    assert [name for name, _ in world.fake.requests if name == "ApplyPolicies"] == []


async def test_why_the_server_does_not_take_it_is_told(switched_on: Console, world: World) -> None:
    world.fake.replies["ApplyPolicies"] = pb.ApplyPoliciesReply(
        refused=[pb.Refusal(code=HOSTILE, message=HOSTILE, file=HOSTILE, line=3, remedy=HOSTILE)]
    )
    answer = await switched_on.post(url("apply"), DRAFT)
    assert answer.status_code == 400
    assert check_harmless(answer.text).text.startswith("Not applied")

    why = "the operators' policies do not allow `unix:0` to apply: `freeze`; see operators.cedar"
    world.fake.failures["ApplyPolicies"] = (grpc.StatusCode.PERMISSION_DENIED, why)
    answer = await switched_on.post(url("apply"), DRAFT)
    assert answer.status_code == 400
    assert "to apply: freeze" in check_harmless(answer.text).text
