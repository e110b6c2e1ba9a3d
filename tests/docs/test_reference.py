"""The reference pages say what the code says."""

from __future__ import annotations

import re
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
        ("commands.md", "| `2` | A case failed, or less than `--min-coverage` is covered. |"),
        ("settings.md", "| `ttl` | duration, as `10s` or `1h30m`, 5s to 1d | `1h` |"),
        ("files.md", "| `service` | name | required |"),
        ("files.md", "| `exponentialDelay` | Istio itself does not implement it; write `fixedDelay` |"),
        ("schema.md", "| `GET`, `HEAD`, `OPTIONS` | `read` | `Workload`, `Unauthenticated` |"),
        ("schema.md", "| `path` | `String` | yes | canonical, no query |"),
        ("records.md", "| `decision` | `allow`, `deny`, `error` |"),
        ("metrics.md", "| `policyd_decisions_total` | counter | `decision`, `side` |"),
        ("errors.md", "| `invalid_input` |"),
        ("errors.md", "| `unreachable` |"),  # an agent's, in proxy/
        ("records.md", "the SHA-256 of the writer's line before"),
        ("records.md", "| `decided_by` | `proxy` |"),
    ],
)
def test_a_page_has_its_rows(page: str, text: str) -> None:
    assert text in PAGES[page]


def test_every_operation_that_is_recorded_by_its_name_is_in_the_page_of_records(root: Path) -> None:
    written = re.compile(
        r"""(?:note|_record|_note)\([^"()]*"([a-z]+\.[a-z_]+)"|"operation": "([a-z.]+)"|OPERATION[^=]*= "([a-z.]+)\""""
    )
    sources = [path.read_text() for path in (root / "policyd").rglob("*.py")]
    named = {name for text in sources for found in written.findall(text) for name in found if name}

    assert {"server.start", "token.create", "mesh.apply", "local.gap", "journal.gap"} <= named
    assert [name for name in sorted(named) if f"`{name}`" not in PAGES["records.md"]] == []
