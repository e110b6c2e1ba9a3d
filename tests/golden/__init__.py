"""Golden files: what the code is meant to make, whole. `make golden` rewrites them; read the difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def check_text(name: str, made: str, *, update: bool) -> None:
    """Compare `made` with the golden file `name`, or write it."""
    file = FOLDER / name
    if update:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(made, encoding="utf-8")
    assert file.exists(), f"there is no golden file {name}: run `make golden` and read it"
    assert made == file.read_text(encoding="utf-8")


def check_json(name: str, made: Any, *, update: bool) -> None:
    """Compare a JSON value with the golden file `name`, or write it."""
    check_text(name, json.dumps(made, indent=1, sort_keys=True) + "\n", update=update)
