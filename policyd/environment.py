"""What the environment of a process says, as one frozen value.

Law: the only reader of the environment. What is not set has the safe default; what is set wrong is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from policyd.errors import UsageError

PASSPHRASE: Final = "POLICYD_CA_PASSPHRASE"  # noqa: S105 - the variable's name; nobody else whom we start sees it
Level = Literal["debug", "info", "warning", "error"]
LEVELS: Final[tuple[Level, ...]] = ("debug", "info", "warning", "error")
# Below Linux's ephemeral range (32768 to 60999), from which any outgoing connection may take a port at any time.
PICKED_PORTS: Final = range(20_000, 32_768)
LEAST_PORTS: Final = 100
SWITCH: Final[Mapping[str, bool]] = {"on": True, "off": False}


@dataclass(frozen=True, slots=True)
class Environment:
    """What the environment says; None where it says nothing. `temporary` is always there."""

    directory: str | None = None
    envoy: str | None = None
    runtime: Path | None = None
    cache: Path | None = None
    temporary: Path = Path("/tmp")  # noqa: S108 - POSIX's default of TMPDIR
    log_level: Level | None = None
    ports: range = PICKED_PORTS
    passphrase: bytes | None = field(default=None, repr=False)
    console: bool = True


def from_environ(environ: Mapping[str, str]) -> Environment:
    """Read POLICYD_DIR, _ENVOY, _LOG, _PORTS, _CONSOLE and _CA_PASSPHRASE, the XDG base directories and TMPDIR.

    Raises UsageError. As the XDG specification says, a base directory that is not absolute is passed over.
    """
    level = environ.get("POLICYD_LOG", "").lower()
    known = next((known for known in LEVELS if known == level), None)
    if level and known is None:
        raise UsageError(f"POLICYD_LOG is `{level[:80]}`", remedy=f"set one of {', '.join(LEVELS)}")
    home = _absolute(environ.get("HOME"))
    return Environment(
        directory=environ.get("POLICYD_DIR") or None,
        envoy=environ.get("POLICYD_ENVOY") or None,
        runtime=_absolute(environ.get("XDG_RUNTIME_DIR")),
        cache=_absolute(environ.get("XDG_CACHE_HOME")) or (home / ".cache" if home else None),
        temporary=_absolute(environ.get("TMPDIR")) or Environment().temporary,
        log_level=known,
        ports=_ports(environ.get("POLICYD_PORTS", "")),
        passphrase=environ.get(PASSPHRASE, "").encode("utf-8", "surrogateescape") or None,
        console=_switch("POLICYD_CONSOLE", environ.get("POLICYD_CONSOLE", "on")),
    )


def _switch(name: str, text: str) -> bool:
    if text not in SWITCH:
        raise UsageError(f"{name} is `{text[:80]}`", remedy="set it to on or off")
    return SWITCH[text]


def _ports(text: str) -> range:
    if not text:
        return PICKED_PORTS
    found = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text, re.ASCII)
    ports = range(int(found[1]), int(found[2]) + 1) if found else range(0)
    if len(ports) < LEAST_PORTS or not 1024 <= ports[0] <= ports[-1] <= 65_535:
        remedy = f"write it as FIRST-LAST, of {LEAST_PORTS} ports at least from 1024 to 65535"
        raise UsageError(f"POLICYD_PORTS is `{text[:80]}`", remedy=remedy)
    return ports


def _absolute(text: str | None) -> Path | None:
    path = Path(text) if text else None
    return path if path and path.is_absolute() else None
