"""The console in a real browser: from a living graph to the reason of a denial in three clicks, and a policy tried."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.browsing import check_accessible, check_fits, chromium
from tests.e2e.conftest import PROGRAM, RunningMesh, copy_of_bookinfo, down
from tests.e2e.terminal import wait_until, wait_until_none_runs
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.needs("chromium"), pytest.mark.timeout(300)]

SECONDS = 60.0  # for what comes by itself
expect.set_options(timeout=SECONDS * 1000)
EDGE = '.edge[data-key="reviews-v1~details-v1"]'
OPEN = '@id("details-from-all")\npermit (principal, action, resource == Service::"details.default");\n'
EVERYWHERE = (
    "/decisions", "/traces", "/policies", "/policies/tests", "/policies/trial", "/policies/revisions", "/certificates",
    "/mesh", "/mesh/proxies/details-v1", "/mesh/resources", "/mesh/analysis", "/?until=2s&range=10s",
    "/mesh/routes?request=productpage+GET+http://reviews/reviews/0",
)  # fmt: skip


@dataclass(slots=True)
class Shown:
    """A mesh with its console, and a browser that was led there by the link that `up` printed."""

    mesh: RunningMesh
    address: str
    page: Page
    wrong: list[str] = field(default_factory=list)  # what no page may do

    def go(self, path: str) -> None:
        """Open a page by its address."""
        self.page.goto(self.address + path)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def shown(root: Path, tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Shown]:
    """Bookinfo as `policyd up` runs it, console included."""
    directory = copy_of_bookinfo(tmp_path_factory.mktemp("console") / "bookinfo", root)
    (directory / "checks.yaml").unlink()  # one of them is denied, which would be seen
    with (directory / "policyd.yaml").open("a") as settings:
        settings.write("console: {apply: true}\n")
    try:
        done = subprocess.run([PROGRAM, "up", str(directory), "--detach"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        [link] = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("console ")]
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        made = Shown(RunningMesh(directory), link.partition("/enter")[0], page)
        watch(made, page)
        page.goto(link)
        page.wait_for_url(f"{made.address}/")
        yield made
        page.context.close()
    finally:
        down(directory)
    wait_until_none_runs(directory)


def watch(made: Shown, page: Page) -> None:
    """Note errors, and requests that go elsewhere."""
    page.set_default_timeout(SECONDS * 1000)
    page.on("console", lambda said: made.wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: made.wrong.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(made.address) else made.wrong.append(asked.url))


# where the middle of a curve is in the window
ON_THE_CURVE = """curve => {
  curve.scrollIntoView({block: "center"});
  const at = curve.getPointAtLength(curve.getTotalLength() / 2).matrixTransform(curve.getScreenCTM());
  return [at.x, at.y];
}"""
# how far to the right the middle of what has the focus is in the graph, and the middles of all there
ACROSS = """() => {
  const across = one => { const box = one.querySelector(".line, rect").getBBox(); return box.x + box.width / 2; };
  const all = [...document.querySelectorAll("svg.graph .node, svg.graph .edge")];
  return [across(document.activeElement), all.map(across)];
}"""


def test_a_denial_turns_an_edge_red_and_leads_to_its_reason(shown: Shown) -> None:
    page = shown.page
    shown.go("/")
    with httpx.Client(trust_env=False, timeout=20) as outside, shown.mesh.client("reviews-v1") as reviews:
        page_url = f"{shown.mesh.gateway}/productpage"

        def is_calm() -> bool:
            """The graph lives, and nothing is denied."""
            outside.get(page_url)  # on a busy machine a decision may be late: 503
            return page.locator(".edge.busy").count() > 0 and page.locator(f"{EDGE}.denied").count() == 0

        wait_until(is_calm, SECONDS)
        check_accessible(page)

        def is_red() -> bool:
            reviews.get("http://details:9080/details/0")
            return page.locator(f"{EDGE}.denied").count() > 0

        wait_until(is_red, SECONDS)

    panel = page.locator(".edge-panel")

    def is_open() -> bool:
        """An edge that moves under the pointer, as others come, is clicked again."""
        page.mouse.click(*page.locator(f"{EDGE} .reach").evaluate(ON_THE_CURVE))
        with suppress(PlaywrightTimeout):
            panel.locator(".figures .bad").wait_for(timeout=5000)
        return panel.locator(".figures .bad").count() > 0

    wait_until(is_open, SECONDS)
    expect(panel.locator(".figures .bad")).to_contain_text("%")
    assert "edge=reviews-v1" in page.url
    check_accessible(page)
    panel.locator("a.deny").first.click()
    expect(page.locator(".verdict")).to_contain_text("no policy permits bookinfo-reviews GET /details/0 on details")
    expect(page.locator("mark.failed").first).to_contain_text("principal")
    expect(page.locator(".verdict")).to_contain_text("bookinfo-productpage")
    check_accessible(page)


def test_a_policy_is_edited_and_the_answer_changes_while_nothing_is_enforced(shown: Shown) -> None:
    page = shown.page
    with shown.mesh.client("reviews-v1") as reviews:
        wait_until(lambda: reviews.get("http://details:9080/details/0").status_code == 403, SECONDS)
    denied = [one["decision_id"] for one in shown.mesh.records("details-v1") if one["decision"] == "deny"]
    shown.go(f"/decisions/{denied[-1]}")
    page.get_by_role("link", name="Try it in the playground").click()
    expect(page.locator(".versus")).to_contain_text("with this draft deny")
    page.locator("#text").fill(OPEN + "permit (")
    expect(page.locator("#findings")).to_contain_text("line 3")
    expect(page.locator("#findings code").first).to_have_text(";")  # that each policy ends with one
    page.locator("#text").fill(OPEN)
    expect(page.locator("#findings .error")).to_have_count(0)
    colours = page.locator("#paint span[class]").evaluate_all("all => all.map(one => [one.textContent, one.className])")
    assert colours[:3] == [["@id", "annotation"], ['"details-from-all"', "string"], ["permit", "effect permit"]]
    page.get_by_role("button", name="Decide").click()
    expect(page.locator(".versus")).to_contain_text("in force deny")
    expect(page.locator(".versus")).to_contain_text("with this draft allow")
    page.get_by_role("button", name="Replay").click()
    expect(page.locator("#answer")).to_contain_text("recorded decisions")
    check_accessible(page)
    with shown.mesh.client("reviews-v1") as reviews:
        wait_until(lambda: reviews.get("http://details:9080/details/0").status_code == 403, SECONDS)


def test_decisions_come_as_they_are_made_and_keys_lead_everywhere(shown: Shown) -> None:
    page = shown.page
    shown.go("/mesh")
    page.locator("h1").click()
    page.keyboard.press("d")
    page.wait_for_url(f"{shown.address}/decisions")
    with shown.mesh.client("reviews-v1") as reviews:

        def comes() -> bool:
            reviews.get("http://details:9080/details/4711")
            return page.locator("tr.new", has_text="/details/4711").count() > 0

        wait_until(comes, SECONDS)
    page.keyboard.press("/")
    page.keyboard.type("bookinfo-reviews")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{shown.address}/decisions?principal=bookinfo-reviews")
    expect(page.locator("#rows .who").first).to_have_text("bookinfo-reviews")


FOCUS = """() => {
  const one = document.activeElement, style = getComputedStyle(one);
  const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  return [one.tagName, one.matches(":focus-visible") && (outlined || one.closest("svg.graph, .editor") !== null)];
}"""
STOPS = 12  # of each page that are walked: the frame's, which all have, and then its own


def test_every_page_is_walked_by_keys_and_the_focus_is_always_seen(shown: Shown) -> None:
    page = shown.page
    for path in ("/", "/decisions", "/policies/playground", "/certificates", "/mesh", "/mesh/resources"):
        shown.go(path)
        page.locator("main").focus()  # past the frame, which is the same everywhere
        for _ in range(STOPS):
            page.keyboard.press("Tab")
            where, is_seen = page.evaluate(FOCUS)
            if where == "BODY":
                break
            assert is_seen, f"{path}: {where}"


def test_an_edge_is_reached_opened_and_left_by_keys_while_the_graph_lives(shown: Shown) -> None:
    page = shown.page
    with shown.mesh.client("reviews-v1") as reviews:

        def is_red() -> bool:
            reviews.get("http://details:9080/details/0")
            return page.locator(f"{EDGE}.denied").count() > 0

        shown.go("/")
        wait_until(is_red, SECONDS)
        page.get_by_label("Find a service").focus()
        while page.evaluate("document.activeElement.closest('svg.graph') === null"):
            page.keyboard.press("Tab")
        for _ in range(40):  # to the left end, wherever that is, and from there along the top
            page.keyboard.press("ArrowLeft")
        here, others = page.evaluate(ACROSS)
        assert here <= min(others) + 4, (here, others)
        page.locator(EDGE).focus()
        edge, _ = page.evaluate(ACROSS)
        page.keyboard.press("ArrowRight")
        further, _ = page.evaluate(ACROSS)
        page.keyboard.press("ArrowLeft")
        assert edge < further > page.evaluate(ACROSS)[0]
        page.locator(EDGE).focus()
        page.keyboard.press("?")
        expect(page.locator("#keys")).to_contain_text("to the next service or edge")
        assert page.evaluate("document.activeElement.closest('dialog').id") == "keys"
        page.keyboard.press("Escape")
        expect(page.locator(EDGE)).to_be_focused()
        page.keyboard.press("Enter")
        panel = page.locator(".edge-panel")
        expect(panel).to_be_focused()
        link = panel.locator(".close")
        page.keyboard.press("Tab")
        expect(link).to_be_focused()
        look = page.locator("[data-look]").get_attribute("data-look")
        expect(page.locator("[data-look]")).not_to_have_attribute("data-look", look or "")  # it was drawn anew
        expect(link).to_be_focused()
        page.keyboard.press("Escape")
        expect(panel).to_have_count(0)
        expect(page.locator(EDGE)).to_be_focused()


def test_a_draft_is_applied_and_every_proxy_answers_by_it(shown: Shown) -> None:
    page = shown.page
    shown.go("/policies/playground?file=policies/details.cedar&request=reviews-v1+GET+http://details/details/0")
    expect(page.locator("#apply")).to_be_disabled()
    page.locator("#text").fill(OPEN)
    page.locator("#apply").click()
    page.get_by_role("button", name="Back").click()
    expect(page.locator(".applied")).to_have_count(0)
    page.locator("#apply").click()
    check_accessible(page)
    page.locator("#sure").get_by_role("button", name="Apply").click()
    expect(page.locator("#answer")).to_contain_text("Not applied")
    expect(page.locator("#answer")).to_contain_text("reviews does not ask details")  # a case of the folder
    file = shown.mesh.directory / "policies" / "details.cedar"
    assert file.read_text() != OPEN
    shutil.rmtree(shown.mesh.directory / "cases")
    page.locator("#apply").click()
    page.locator("#sure").get_by_role("button", name="Apply").click()
    expect(page.locator(".applied")).to_contain_text("policies/details.cedar is enforced")
    expect(page.locator("#apply")).to_be_disabled()
    assert file.read_text() == OPEN
    with shown.mesh.client("reviews-v1") as reviews:
        wait_until(lambda: reviews.get("http://details:9080/details/0").status_code == 200, SECONDS)
    said = subprocess.run(
        [PROGRAM, "log", "query", "--kind", "operation", "--json", "--dir", str(shown.mesh.directory)],
        capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    assert '"policies.apply"' in said
    file.write_text("")  # by somebody else, beside the console
    page.locator("#text").fill(OPEN + "// more\n")
    page.locator("#apply").click()
    page.locator("#sure").get_by_role("button", name="Apply").click()
    expect(page.locator("#answer")).to_contain_text("was changed meanwhile")
    shown.wrong = [one for one in shown.wrong if "400" not in one]  # the answer to what is refused


def test_a_decision_is_replayed_under_the_folder_as_it_is(shown: Shown) -> None:
    page = shown.page
    denied = [one["decision_id"] for one in shown.mesh.records("details-v1") if one["decision"] == "deny"]
    put(shown.mesh.directory / "policies" / "details.cedar", OPEN)
    shown.go(f"/decisions/{denied[-1]}")
    page.get_by_role("button", name="Replay").click()
    expect(page.locator(".replayed .versus")).to_contain_text("recorded deny")
    expect(page.locator(".replayed .versus")).to_contain_text("allow differs")
    check_accessible(page)


def test_every_page_is_clean_wide_and_narrow_in_the_light_and_in_the_dark(shown: Shown) -> None:
    page = shown.page
    for at, path in enumerate(EVERYWHERE):
        shown.go(path)
        for width, scheme in ((1440, at % 2), (400, at % 2), (400, 1 - at % 2)):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=("light", "dark")[scheme])
            check_accessible(page)
        check_fits(page)
    page.set_viewport_size({"width": 1440, "height": 900})
    assert shown.wrong == []
