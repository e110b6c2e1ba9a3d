"""The reference pages say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generate import pages

PAGES = pages()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_is_what_the_code_makes_now(name: str, root: Path) -> None:
    page = root / "docs" / "reference" / name

    assert (page.read_text() if page.is_file() else "") == PAGES[name], "refresh it: .venv/bin/python docs/generate.py"


def test_no_page_is_left_over(root: Path) -> None:
    assert sorted(page.name for page in (root / "docs" / "reference").iterdir()) == sorted(PAGES)


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("commands.md", "### `policyd log tail`"),
        ("commands.md", "| `--join TOKEN` |"),
        ("settings.md", "| `ttl` | duration, as `10s` or `1h30m`, 5s to 1d | `1h` |"),
        ("files.md", "| `service` | name | required |"),
        ("files.md", "| `exponentialDelay` | Istio itself does not implement it; write `fixedDelay` |"),
        ("schema.md", "| `GET`, `HEAD`, `OPTIONS` | `read` | `Workload`, `Unauthenticated` |"),
        ("schema.md", "| `path` | `String` | yes | canonical, no query |"),
        ("records.md", "| `decision` | `allow`, `deny`, `error` |"),
        ("metrics.md", "| `policyd_decisions_total` | counter | `decision`, `side` |"),
        ("errors.md", "| `invalid_input` |"),
    ],
)
def test_a_page_has_its_rows(page: str, text: str) -> None:
    assert text in PAGES[page]
