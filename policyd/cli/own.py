"""How our own programs are started.

Law: as light as can be: who starts one in the background must not first import what that one needs.
"""

from __future__ import annotations

import sys
from pathlib import Path


def command(script: str, module: str) -> list[str]:
    """Return how to start one of our own programs: its script beside this interpreter, else its module."""
    beside = Path(sys.executable).with_name(script)
    return [sys.executable, str(beside)] if beside.exists() else [sys.executable, "-m", module]
