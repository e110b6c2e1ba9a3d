"""A real browser: Debian's Chromium, and what a page in it must be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

from playwright.sync_api import Browser, Page, sync_playwright


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, for as long as it is needed."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield found
        found.close()


def check_accessible(page: Page) -> None:
    """What axe says of a page as it is."""
    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(f"() => {{ {axe} }}")
    told = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    found = [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in told["violations"]]
    assert found == [], found


# what stands out of the page, of its cell or of its box, where nothing scrolls that is meant to
OUTSIDE = """() => {
  const told = [], wide = document.documentElement.scrollWidth;
  const tell = (what, one) => {
    told.push(`${what}: ${one.tagName}.${one.getAttribute("class") || ""} ${one.textContent.trim().slice(0, 40)}`);
  };
  const scrolled = ".scroll, .code, pre, textarea, .editor, svg, .quiet, .skip, dialog";
  if (wide > innerWidth) told.push(`the page is ${wide} wide`);
  for (const one of document.querySelectorAll("body *")) {
    const box = one.getBoundingClientRect();
    if (!box.width || one.closest(scrolled)) continue;
    if (box.right > innerWidth + 1 || box.left < -1) tell("out of the page", one);
  }
  for (const cell of document.querySelectorAll("table.rows :is(td, th)"))
    if (cell.clientWidth > 2 && cell.scrollWidth > cell.clientWidth + 1) tell("out of its cell", cell);
  for (const node of document.querySelectorAll("svg.graph .node")) {
    const room = node.querySelector("rect").getBBox();
    for (const text of node.querySelectorAll("text")) {
      const box = text.getBBox();
      if (box.x + box.width > room.x + room.width) tell("out of its node", text);
    }
  }
  return told;
}"""


def check_fits(page: Page) -> None:
    """Nothing stands out of where it belongs."""
    found = page.evaluate(OUTSIDE)
    assert found == [], found
