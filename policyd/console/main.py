"""The process: where it listens, what opens it, and its end.

Law: beyond this machine only with TLS and a token, both from files of the owner's. It says where it listens in one line
of JSON and in the state folder; no secret is in either. It ends with what started it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import uvicorn

from policyd.config.addresses import Address
from policyd.config.console import ConsoleSettings
from policyd.config.settings import SETTINGS_FILE, parse_settings
from policyd.console.app import application
from policyd.console.desk import Desk
from policyd.console.door import Rules
from policyd.console.entrance import MIN_TOKEN
from policyd.console.provider import Provider
from policyd.console.sessions import sessions_of
from policyd.console.source import Source
from policyd.console.watch import Watch
from policyd.environment import from_environ
from policyd.error_text import error_lines
from policyd.errors import PolicydError, StateError
from policyd.home import HOME
from policyd.instance import trust_domain_of
from policyd.names import CONSOLE_LISTENING
from policyd.sources import placement as placements
from policyd.sources import ports
from policyd.sources.console_key import key_of
from policyd.sources.files import read_folder
from policyd.sources.state import prepare_state, write_private
from policyd.state_paths import state_paths

GRACE_SECONDS: Final = 3
BACKLOG: Final = 64
MAX_TOKEN_FILE: Final = 4_096
NAME: Final = "console"


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="policyd.console")
    parser.add_argument("--dir", type=Path, required=True)
    directory = parser.parse_args().dir.resolve()
    HOME.moved(lambda: trust_domain_of(directory))
    try:
        serve(directory)
    except PolicydError as error:
        sys.stderr.write("\n".join(error_lines(error)) + "\n")
        sys.exit(1)


def serve(directory: Path) -> None:
    """Serve the console of a folder; raises PolicydError where it cannot be started."""
    signal.signal(signal.SIGTERM, _end)  # until the loop takes it over; what is announced is taken back
    paths = prepare_state(directory, os.getuid())
    settings = parse_settings(read_folder(directory).text(SETTINGS_FILE) or "").console
    kept = paths.root / "console-ports.json"
    picked = placements.candidates(random.SystemRandom(), from_environ(os.environ).ports)
    address = ports.choose({NAME: settings.listen}, ports.load(kept), placements.is_free, picked)[NAME]
    ports.save(kept, {NAME: address})
    rules = rules_of(settings, address, key_of(paths))
    with _socket(address) as listening, _announced(paths.console, address, rules):
        asyncio.run(_serve(directory, settings, rules, listening))


def rules_of(settings: ConsoleSettings, address: Address, key: bytes) -> Rules:
    """Who may come in."""
    names = settings.names or (("localhost", "127.0.0.1", "[::1]") if address.is_loopback else ())
    hosts = {str(address), *(f"{name}:{address.port}" for name in names)}
    scheme = "https" if settings.certificate_file else "http"
    if (scheme, address.port) in (("http", 80), ("https", 443)):
        hosts |= set(names)
    return Rules(frozenset(host.lower() for host in hosts), key, f"policyd_{address.port}", scheme)


def token_of(settings: ConsoleSettings, directory: Path) -> str:
    """The token that opens the console, "" where there is none; raises StateError."""
    if settings.token_file is None:
        return ""
    path = directory / settings.token_file
    token = _secret(path, "console.tokenFile")
    if len(token) < MIN_TOKEN:
        remedy = "write one with `openssl rand -hex 32`"
        raise StateError(f"the token in `{path}` has less than {MIN_TOKEN} characters", remedy=remedy)
    return token


def provider_of(settings: ConsoleSettings, directory: Path) -> Provider | None:
    """With whom people log in, None where nobody does; raises StateError."""
    oidc = settings.oidc
    if oidc is None:
        return None
    file = oidc.client_secret_file
    secret = _secret(directory / file, "console.oidc.clientSecretFile") if file else ""
    return Provider(oidc.issuer, oidc.client_id, secret, time.monotonic)


def _secret(path: Path, setting: str) -> str:
    """What a file holds that nobody else may read; raises StateError."""
    try:
        if path.stat().st_mode & 0o077:
            raise StateError(f"others may read `{path}`", remedy=f"run `chmod 600 {path}`")
        return path.read_text(encoding="ascii").strip()[:MAX_TOKEN_FILE]
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"`{path}` cannot be read: {error}", remedy=f"see `{setting}` in policyd.yaml") from None


async def _serve(directory: Path, settings: ConsoleSettings, rules: Rules, listening: socket.socket) -> None:
    source = Source(directory)
    desk = Desk(source, Watch(source.see), rules, lambda: datetime.now(UTC), settings.apply)
    token, provider = token_of(settings, directory), provider_of(settings, directory)
    sessions = sessions_of(state_paths(directory).root / "console-sessions.json", int(time.time()))
    app: Any = application(desk, lambda: int(time.time()), time.monotonic, token, provider, sessions)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        limit_concurrency=256,
        h11_max_incomplete_event_size=32 << 10,
        ssl_certfile=_beside(directory, settings.certificate_file),
        ssl_keyfile=_beside(directory, settings.key_file),
    )
    server = uvicorn.Server(config)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        desk.stopping.set()
        server.should_exit = True

    gc.freeze()
    serving = asyncio.create_task(server.serve([listening]))
    await asyncio.sleep(0)
    for number in (signal.SIGTERM, signal.SIGINT):  # after uvicorn's own
        loop.add_signal_handler(number, stop)
    await serving


def _end(_number: int, _frame: object) -> None:
    sys.exit(0)


def _beside(directory: Path, name: str | None) -> str | None:
    return str(directory / name) if name else None


@contextmanager
def _socket(address: Address) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((address.host, address.port))
        except OSError as error:
            message = f"the console cannot listen on `{address}`: {error.strerror}"
            raise StateError(message, remedy="give another one as `console.listen` in policyd.yaml") from None
        listening.listen(BACKLOG)
        yield listening


@contextmanager
def _announced(path: Path, address: Address, rules: Rules) -> Iterator[None]:
    """console.json says where it is for as long as it is there."""
    facts = {"pid": os.getpid(), "address": str(address), "scheme": rules.scheme}
    write_private(path, json.dumps(facts).encode())
    sys.stdout.write(json.dumps({"event": CONSOLE_LISTENING, **facts}) + "\n")
    sys.stdout.flush()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
