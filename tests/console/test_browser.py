"""The console in a real browser over a world that holds still: rows that stay below who reads them, keys that lead to
every end, names of any length, narrow screens.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from playwright.sync_api import Browser, Page, expect

from policyd._pb import admin_pb2 as pb
from policyd.cli.console import command, link
from policyd.state_paths import state_paths
from tests.browsing import check_accessible, check_fits, chromium
from tests.console.conftest import NOW, PLACES, World, place
from tests.console.test_pages import beset, denied
from tests.fakes.proxies import Calls, counting
from tests.policy import traffic

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(240)]

SECONDS = 30.0
expect.set_options(timeout=SECONDS * 1000)
LONG = "Wm" * 110  # 220 characters, wide, without a place to break at
PAGES = (
    "/", "/decisions", f"/decisions/{1:032x}", f"/decisions/{1:032x}?under=folder", "/traces", f"/traces/{'0a' * 16}",
    "/policies", "/policies/playground", "/policies/tests", "/policies/trial", "/policies/revisions", "/certificates",
    "/mesh", "/mesh/resources", "/mesh/analysis", "/mesh/routes", "/mesh/routes?request=nobody", "/nowhere",
)  # fmt: skip


@dataclass(slots=True)
class Seen:
    """A world in a browser."""

    world: World
    address: str
    page: Page
    wrong: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        """Open a page by its address."""
        self.page.goto(self.address + path)

    def happens(self, *numbers: int) -> None:
        """So many denials are recorded, in this order."""
        traffic.write(self.world.folder, iter([denied(f"/details/{at}", at) for at in numbers]))

    def paths(self, count: int = 1) -> list[str]:
        """Of the rows on top what was asked for."""
        found: list[str] = self.page.locator("#rows .path").all_text_contents()
        return found[:count]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests."""
    with chromium() as found:
        yield found


@pytest.fixture
def seen(world: World, browser: Browser) -> Iterator[Seen]:
    """The console's own process, and a page that its link has opened."""
    world.fake.replies["Inspect"] = counting(lambda: growing(world.calls))
    paths = state_paths(world.folder)
    paths.format.write_text("1\n")
    with subprocess.Popen(command(world.folder), stdout=subprocess.PIPE, text=True) as console:
        try:
            assert console.stdout is not None
            address = f"http://{json.loads(console.stdout.readline())['address']}"
            page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
            page.set_default_timeout(SECONDS * 1000)
            made = Seen(world, address, page)
            page.on("pageerror", lambda error: made.wrong.append(str(error)))
            page.goto(link(paths))
            page.wait_for_url(f"{address}/")
            yield made
            page.context.close()
            assert made.wrong == []
        finally:
            console.terminate()


def growing(calls: list[Calls]) -> list[Calls]:
    """So often each second since long ago."""
    now = int(time.time()) % 100_000
    return [
        Calls(one.source, one.target, one.allowed * now, one.denied * now, one.failed * now, one.security)
        for one in calls
    ]


def until_live(seen: Seen) -> None:
    """Open the decisions; what is recorded from now on comes by itself."""
    with seen.page.expect_response(lambda answer: "/live/decisions" in answer.url):
        seen.go("/decisions")


def is_heard(seen: Seen) -> None:
    """Record denials until one comes by itself: from then on all do."""
    for at in range(1, 30):
        seen.happens(at)
        with suppress(AssertionError):
            expect(seen.page.locator("#rows .path").first).to_have_text(f"/details/{at}", timeout=2000)
            return
    raise TimeoutError("nothing came")


def test_a_row_that_is_read_stays_where_it_is_and_what_is_new_waits(seen: Seen) -> None:
    page, fresh = seen.page, seen.page.locator("[data-fresh]")
    until_live(seen)
    is_heard(seen)
    page.keyboard.press("j")
    focused = page.locator("#rows a:focus")
    read = focused.get_attribute("href")
    where = focused.bounding_box()

    seen.happens(1000)
    expect(fresh).to_have_text("1 new")
    seen.happens(2000, 2001)
    expect(fresh).to_have_text("3 new")
    assert (focused.get_attribute("href"), focused.bounding_box()) == (read, where)
    check_accessible(page)

    page.keyboard.press("n")  # they come, and the row that is read stays the same one in the same place
    expect(fresh).to_be_hidden()
    assert seen.paths(3) == ["/details/2001", "/details/2000", "/details/1000"]
    assert (focused.get_attribute("href"), focused.bounding_box()) == (read, where)

    seen.happens(3000)
    expect(fresh).to_have_text("1 new")
    fresh.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#rows .path").first).to_have_text("/details/3000")
    expect(page.locator("#rows tr").first.locator("a")).to_be_focused()


def test_a_row_below_the_pointer_stays_until_it_is_left(seen: Seen) -> None:
    page, fresh = seen.page, seen.page.locator("[data-fresh]")
    until_live(seen)
    is_heard(seen)
    page.locator("#rows tr").nth(2).hover()
    before = seen.paths(5)
    seen.happens(1000)
    expect(fresh).to_have_text("1 new")
    assert seen.paths(5) == before
    page.locator("h1").hover()
    expect(page.locator("#rows .path").first).to_have_text("/details/1000")
    page.locator("#rows tr").nth(2).hover()
    seen.happens(1001)
    fresh.click()
    expect(page.locator("#rows .path").first).to_have_text("/details/1001")
    expect(fresh).to_be_hidden()


def hide(page: Page, *, is_hidden: bool) -> None:
    """Have the page think that its tab is looked at, or not."""
    page.evaluate(
        """(hidden) => {
          Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )


def test_what_comes_while_the_page_is_held_is_counted_and_shown_once_after_it(seen: Seen) -> None:
    page, fresh = seen.page, seen.page.locator("[data-fresh]")
    seen.happens(*range(1, 4))
    until_live(seen)
    page.keyboard.press("Space")
    seen.happens(*range(10, 50))
    expect(fresh).to_have_text("40 more since you paused")
    check_accessible(page)
    assert seen.paths(3) == ["/details/3", "/details/2", "/details/1"]
    seen.happens(50)
    expect(fresh).to_have_text("41 more since you paused")
    page.keyboard.press("Space")
    expect(page.locator("#rows .path").first).to_have_text("/details/50")
    expect(fresh).to_be_hidden()
    assert seen.paths(44) == [f"/details/{at}" for at in (*range(50, 9, -1), 3, 2, 1)]

    page.keyboard.press("Space")
    seen.happens(60, 61)
    expect(fresh).to_have_text("2 more since you paused")
    fresh.click()  # the pointer stays on it
    expect(page.locator("#rows .path").first).to_have_text("/details/61")
    expect(page.locator("[data-hold]")).to_have_text("live")
    assert seen.paths(3) == ["/details/61", "/details/60", "/details/50"]


def test_what_came_while_the_tab_was_hidden_is_shown_once_when_it_is_seen_again(seen: Seen) -> None:
    page = seen.page
    seen.happens(1)
    until_live(seen)
    hide(page, is_hidden=True)
    seen.happens(*range(10, 40))
    hide(page, is_hidden=False)
    expect(page.locator("#rows .path").first).to_have_text("/details/39")
    assert seen.paths(31) == [f"/details/{at}" for at in (*range(39, 9, -1), 1)]

    page.keyboard.press("Space")
    hide(page, is_hidden=True)
    seen.happens(50, 51)
    hide(page, is_hidden=False)
    expect(page.locator("[data-fresh]")).to_have_text("2 more since you paused")


def test_keys_in_a_table_pass_over_rows_that_are_not_shown(seen: Seen) -> None:
    page = seen.page
    seen.happens(*range(1, 6))
    until_live(seen)
    page.evaluate("document.querySelectorAll('#rows tr').forEach((row, at) => { row.hidden = at === 0; })")
    page.locator(".scroll").focus()
    page.keyboard.press("PageDown")
    expect(page.locator("#rows tr").nth(1).locator("a")).to_be_focused()
    page.evaluate("document.querySelectorAll('#rows tr').forEach((row) => row.remove())")
    page.locator(".scroll").focus()
    for key in ("PageDown", "ArrowUp", "End", "j"):
        page.keyboard.press(key)


def test_keys_lead_to_both_ends_of_a_long_table_and_to_what_is_before_it(seen: Seen) -> None:
    page = seen.page
    traffic.write(
        seen.world.folder, (denied(f"/details/{at}", at, time=NOW + timedelta(seconds=at)) for at in range(250))
    )
    until_live(seen)

    def here() -> int:
        found: int = page.evaluate(
            "[...document.querySelectorAll('#rows tr')].indexOf(document.activeElement.closest('tr'))"
        )
        return found

    walked = []
    for key in ("j", "j", "ArrowDown", "k", "End", "ArrowUp", "PageUp", "Home", "PageDown"):
        page.keyboard.press(key)
        walked.append(here())
        expect(page.locator("#rows a:focus")).to_be_in_viewport()
    assert walked[:6] == [0, 1, 2, 1, 99, 98]
    assert walked[7] == 0
    assert 98 - walked[6] == walked[8] > 5, "a page of rows"
    page.keyboard.press("End")
    page.keyboard.press("Tab")  # past the last row
    page.get_by_role("link", name="those before").press("Enter")
    page.wait_for_url("**/decisions?until=*")
    assert seen.paths(100) == [f"/details/{at}" for at in range(150, 50, -1)], "from the one that was the last on"


def test_an_edge_and_its_rows_stay_in_their_order_while_they_are_read(seen: Seen) -> None:
    page, world = seen.page, seen.world
    world.calls = [Calls("productpage-v1", "reviews-v1", 9), Calls("productpage-v1", "reviews-v2", 3)]
    names = page.locator("[data-part=links] tbody td:nth-child(2)")

    def look() -> None:
        shown = page.locator("[data-look]").get_attribute("data-look") or ""
        expect(page.locator("[data-look]")).not_to_have_attribute("data-look", shown)

    expect(names.first).to_have_text("reviews-v1")
    page.locator("[data-part=links] tbody tr").first.hover()
    world.calls = [Calls("productpage-v1", "reviews-v1", 9), Calls("productpage-v1", "reviews-v2", 9, denied=900)]
    expect(page.locator(".edge.denied")).to_have_count(1)
    look()
    assert names.all_text_contents()[:2] == ["reviews-v1", "reviews-v2"]
    page.locator("h1").hover()
    expect(names.first).to_have_text("reviews-v2")


def test_of_two_hundred_services_one_is_found_and_stands_apart_with_its_neighbours(seen: Seen) -> None:
    page, names = seen.page, [f"shop-{at:03}" for at in range(200)]
    seen.world.fake.replies["Instances"] = pb.InstancesReply(instances=[place(name, name) for name in names])
    seen.world.calls = [Calls(names[(at - 1) // 3], names[at], 1 + at % 7) for at in range(1, 200)]
    seen.world.calls[41] = Calls("shop-013", "shop-042", 1, denied=5)

    expect(page.locator(".node")).to_have_count(200)
    expect(page.locator(".edge.denied")).to_have_count(1)
    check_fits(page)
    check_accessible(page)
    page.locator("body").press("/")
    page.keyboard.type("shop-042")
    expect(page.locator(".node.hit")).to_have_count(1)
    apart = page.locator(".node:not(.dim)").evaluate_all("all => all.map(one => one.dataset.key).sort()")
    assert apart == [f"{name}.default" for name in ("shop-013", "shop-042", "shop-127", "shop-128", "shop-129")]
    page.keyboard.press("Enter")
    expect(page.locator(".node.hit")).to_be_focused()
    page.keyboard.press("Enter")  # around it
    expect(page.locator(".node")).to_have_count(5)
    page.locator(".edge.denied").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".edge-panel .figures .bad")).to_contain_text("83.3 %")


@pytest.mark.parametrize(("width", "schemes"), [(400, ("light", "dark")), (1400, ("light",))])
def test_names_of_any_length_stay_in_their_places(seen: Seen, width: int, schemes: tuple[str, ...]) -> None:
    page = seen.page
    beset(seen.world, LONG)
    seen.world.fake.replies["Instances"] = pb.InstancesReply(
        instances=[*PLACES, place(LONG, LONG), place(f"{LONG}-v2", LONG)]
    )
    seen.world.calls = [Calls(LONG, "details-v1", 2, denied=3), Calls("ingress", f"{LONG}-v2", 5)]
    (seen.world.folder / "policies" / f"{LONG[:200]}.cedar").write_text(
        f'@id("{LONG}")\npermit (principal, action, resource == Service::"details.default")\n'
        f'when {{ context.request.path == "/{LONG}" }};\n'
    )
    page.set_viewport_size({"width": width, "height": 850})
    for path in (*PAGES, f"/?edge={LONG}~details-v1", f"/?focus={LONG}"):
        seen.go(path)
        if path.startswith("/?"):
            expect(page.locator(".edge.denied")).to_have_count(1)
        try:
            check_fits(page)
            for scheme in schemes:
                page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                check_accessible(page)
        except AssertionError as error:
            raise AssertionError(f"{path[:60]}: {error}") from None
