"""Writes docs/reference/ from the code, so that no page says what the code does not do.

`.venv/bin/python docs/generate.py` rewrites the pages; tests/docs/test_reference.py fails while one is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "docs" / "reference"
MADE: Final = "<!-- made by docs/generate.py; change the code, then run it -->\n\n"


def pages() -> dict[str, str]:
    """Give the text of every page, by file name."""
    from docs.pages import commands, files, findings, schema, settings, signals, support
    from policyd.sources.shipped import shipped_schema

    makers: Mapping[str, Callable[[], Iterator[str]]] = {
        "commands.md": commands.commands,
        "errors.md": signals.error_codes,
        "files.md": files.files,
        "findings.md": findings.findings,
        "mesh.md": support.mesh,
        "metrics.md": signals.metrics,
        "records.md": signals.records,
        "schema.md": lambda: schema.schema(shipped_schema("mesh")),
        "settings.md": settings.settings,
    }
    return {name: f"{MADE}{chr(10).join(make()).rstrip()}\n" for name, make in makers.items()}


def main() -> None:
    """Write every page."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a script, Python looks beside the script alone
    main()
