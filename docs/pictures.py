"""`make pictures`: the demo runs, requests pass, and pages of the console are photographed, in the light or the dark.

Law: pictures are of the real thing; nothing in them is drawn or written by hand.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
PICTURES = Path(__file__).parent / "pictures"
PROGRAM = str(Path(sys.executable).with_name("policyd"))
EDGE = "reviews-v1~details-v1"
REQUEST = "reviews-v1 GET http://details/details/0"
SIZE = {"width": 1280, "height": 800}
FOR_SECONDS = 25.0  # requests pass, so that a minute has something to tell
OPEN = (
    '// Whoever reads reviews may see details.\n@id("details-from-readers")\npermit (\n  principal in '
    'Group::"ratings-readers",\n  action == Action::"GET",\n  resource == Service::"details.default"\n)\n'
    'when { context.request.path like "/details/*" };\n'
)


def main() -> None:
    """Take them all; returns when the demo has ended."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "bookinfo"
        shutil.copytree(ROOT / "examples" / "bookinfo", folder, ignore=shutil.ignore_patterns(".policyd"))
        with (folder / "policyd.yaml").open("a") as settings:
            settings.write("console: {apply: true}\n")
        try:
            said = subprocess.run([PROGRAM, "up", str(folder), "--detach"], capture_output=True, text=True, check=True)
            lines = dict(
                line.split(None, 1) for line in said.stdout.splitlines() if line.startswith(("console ", "open "))
            )
            _traffic(folder, lines["open"])
            _photographs(folder, lines["console"], lines["open"])
        finally:
            subprocess.run([PROGRAM, "down", "--dir", str(folder)], check=True, capture_output=True)


def _says(folder: Path, *words: str) -> Any:
    import json

    done = subprocess.run([PROGRAM, *words, "--dir", str(folder)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[0] if "query" in words else done.stdout)


def _traffic(folder: Path, page: str, seconds: float = FOR_SECONDS) -> None:
    places = {one["name"]: one for one in _says(folder, "status", "--json")["instances"]}
    proxy = places["reviews-v1"]["proxy_url"]
    with httpx.Client(trust_env=False, timeout=20) as outside, httpx.Client(proxy=proxy, trust_env=False) as reviews:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            outside.get(page)
            outside.get(page)
            reviews.get("http://details:9080/details/0")
            time.sleep(0.2)


def _photographs(folder: Path, link: str, page_url: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    denied = _says(folder, "log", "query", "--decision", "deny", "-n", "1", "--json")
    traces = _says(folder, "traces", "list", "--json")["traces"]
    longest = max(traces, key=lambda one: one["spans"])
    pages = {
        "graph-light": "/",
        "graph-dark": "/",
        "edge-light": f"/?{urlencode({'edge': EDGE})}",
        "decision-light": f"/decisions/{denied['decision_id']}",
        "decisions-light": "/decisions",
        "certificates-light": "/certificates",
        "trace-dark": f"/traces/{longest['id']}",
        "playground-dark": f"/policies/playground?{urlencode({'file': 'policies/details.cedar', 'request': REQUEST})}",
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
        page.goto(link)
        page.wait_for_url("**/")
        address = link.partition("/enter")[0]
        for name, path in pages.items():
            page.emulate_media(color_scheme=name.rpartition("-")[2])  # type: ignore[arg-type]
            _traffic(folder, page_url, 3.0)
            page.goto(address + path)
            if name.startswith("playground"):
                page.locator("#text").fill(OPEN)
                page.get_by_role("button", name="Decide").click()
                page.locator(".versus", has_text="draft allow").wait_for()
            time.sleep(1.0)
            page.screenshot(path=PICTURES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
