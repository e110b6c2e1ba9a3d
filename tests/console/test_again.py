"""A recorded decision is replayed under other policies, and a trial is summed up; hostile text in both is text."""

from __future__ import annotations

from datetime import timedelta

from policyd._pb import admin_pb2 as pb
from policyd.audit.record import Fault, Shadow
from tests.cli.recorded import in_force
from tests.console.conftest import NOW, Console, World, check_harmless
from tests.console.test_pages import HOSTILE, denied
from tests.policy import traffic

ID = f"{0xABC:032x}"
OPEN = '@id("details-from-all")\npermit (principal, action, resource == Service::"details.default");\n'
LATER = timedelta(hours=1)


def recorded(world: World) -> None:
    """A denial, under the revision that is in force."""
    traffic.write(world.folder, [denied(at=0xABC, revision=world.ruling.revision)])


async def test_a_decision_is_replayed_under_the_folder_as_it_is(console: Console, world: World) -> None:
    recorded(world)
    (world.folder / "policies" / "details.cedar").write_text(OPEN)

    plain = check_harmless((await console.get(f"/decisions/{ID}")).text)
    page = check_harmless((await console.get(f"/decisions/{ID}?under=folder")).text)

    assert "recorded deny → allow differs" not in plain.text
    assert "folder" in plain.of("option", "value")
    assert "Replayed under the folder as it is now recorded deny → allow differs" in page.text
    assert "permitted by details-from-all" in page.text
    assert "which is the folder as it is now" in page.text
    assert "no policy permits bookinfo-reviews GET /details/0 on details" in page.text, "as it was stays"


async def test_a_decision_is_replayed_under_another_revision(console: Console, world: World) -> None:
    recorded(world)
    (world.folder / "policies" / "details.cedar").write_text(OPEN)
    later = in_force(world.folder, NOW + LATER)

    plain = check_harmless((await console.get(f"/decisions/{ID}")).text)
    assert plain.of("option", "value") == ["folder", later.revision[:12]]
    page = check_harmless((await console.get(f"/decisions/{ID}?under={later.revision[:12]}")).text)
    assert "recorded deny → allow differs" in page.text
    assert "explained under" in page.text
    assert "as you chose" in page.text


async def test_what_cannot_be_replayed_says_why(console: Console, world: World) -> None:
    recorded(world)
    for under in ("zz", HOSTILE[:60], "trial"):
        answer = await console.client.get(f"/decisions/{ID}", params={"under": under})
        assert answer.status_code == 400, under
        check_harmless(answer.text)
    (world.folder / "policies" / "details.cedar").write_text("permit (")
    page = check_harmless((await console.get(f"/decisions/{ID}?under=folder")).text)
    assert "policies/details.cedar:1" in page.text
    assert "recorded deny → not decided" in page.text


async def test_a_trial_is_summed_up_by_caller_and_service(console: Console, world: World) -> None:
    nothing = check_harmless((await console.get("/policies/trial")).text)
    assert "No decision has both answers" in nothing.text
    trial = Shadow(decision="allow", reasons=("details-from-all",), revision="77aa" * 16)
    broken = Shadow(decision="error", errors=(Fault(HOSTILE, HOSTILE),), revision=HOSTILE)
    hostile = Shadow(decision="allow", reasons=(HOSTILE,), revision="88bb" * 16)
    traffic.write(
        world.folder,
        [
            *(denied(at=at, shadow=trial, time=NOW - LATER / 2) for at in (1, 2, 3)),
            denied(HOSTILE, at=4, shadow=broken, time=NOW - LATER / 2),
            denied(HOSTILE, at=5, shadow=hostile, principal=f'Workload::"{HOSTILE[:5]}"'),
        ],
    )

    page = check_harmless((await console.get("/policies/trial")).text)
    latest = check_harmless((await console.get("/policies/trial?revision=latest&since=7d")).text)

    assert "4 would be allowed" in page.text
    assert "allow bookinfo-reviews GET details no policy details-from-all 3" in page.text
    assert f"/decisions/{3:032x}?under=trial" in page.of("a", "href")
    assert "evil.example" in page.text
    assert "1 would be allowed" in latest.text


async def test_what_is_on_trial_is_told_and_a_decision_is_replayed_under_it(console: Console, world: World) -> None:
    file = world.folder / "policies" / "details.cedar"
    file.write_text(file.read_text() + "\n@shadow\n" + OPEN)
    now = in_force(world.folder, NOW)
    assert now.shadow is not None
    shadow = pb.Shadow(revision=now.shadow.revision, policies=6)
    world.fake.replies["Status"] = pb.StatusReply(ready=True, revision=now.revision, shadow=shadow)
    traffic.write(world.folder, [denied(at=0xABC, revision=now.revision)])

    page = check_harmless((await console.get(f"/decisions/{ID}?under=trial")).text)

    assert "Replayed under the policies on trial recorded deny → allow differs" in page.text
    assert "the set on trial has 6 policies" in check_harmless((await console.get("/policies/trial")).text).text
    in_force_now = check_harmless((await console.get("/policies?q=details-from-all")).text)
    assert "policies/details.cedar 1 policy, 1 on trial" in in_force_now.text
