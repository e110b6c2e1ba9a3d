"""The folder's authority as a start or a command finds it: its keys, their passphrase, and who signs above it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import structlog

from policyd.ca.elsewhere import Signer
from policyd.ca.files import read_passphrase
from policyd.ca.jwt_store import JwtKeyStore
from policyd.ca.open import Opened, open_authority
from policyd.ca.passphrase_command import told_passphrase
from policyd.ca.signing_command import SigningCommand
from policyd.ca.signing_service import SigningService
from policyd.ca.upstream import Upstream
from policyd.ca.web import Service
from policyd.config.authority import UpstreamSettings
from policyd.config.settings import Settings
from policyd.environment import PASSPHRASE, Environment
from policyd.errors import KeyFileError
from policyd.state_paths import StatePaths

_log = structlog.get_logger("policyd.server")


def passphrase_of(directory: Path, settings: Settings, environment: Environment) -> bytes | None:
    """What the keys at rest are encrypted under; None where they are not. Raises KeyFileError.

    Whoever has a passphrase has one: two that may differ are refused.
    """
    file, command = settings.ca.passphrase_file, settings.ca.passphrase_command
    if environment.passphrase is not None and (file or command):
        said = "ca.passphraseFile" if file else "ca.passphraseCommand"
        raise KeyFileError(f"both `{PASSPHRASE}` and `{said}` tell the passphrase", remedy="take one of them away")
    if file:
        return read_passphrase(directory / file)
    return told_passphrase(tuple(command), directory) if command else environment.passphrase


def open_folders_authority(
    directory: Path, paths: StatePaths, settings: Settings, passphrase: bytes | None, clock: Callable[[], datetime]
) -> Opened:
    """The folder's authority, made at the first start; raises StateError or KeyFileError."""
    opened = open_authority(
        paths.root,
        settings.trust_domain,
        clock=clock,
        random=secrets.token_bytes,
        passphrase=passphrase,
        upstream=upstream_of(directory, settings),
    )
    for notice in opened.notices:
        _log.info("ca.notice", text=notice)
    return opened


def open_jwt_keys(paths: StatePaths, passphrase: bytes | None, clock: Callable[[], datetime]) -> JwtKeyStore:
    """The keys of the authority's tokens, made at the first start; raises StateError or KeyFileError."""
    return JwtKeyStore(paths.ca, clock, secrets.token_bytes, passphrase)


def upstream_of(directory: Path, settings: Settings) -> Upstream | None:
    """Where another authority's certificate for ours is; None where ours is under nobody's."""
    said = settings.ca.upstream
    if said is None:
        return None
    key = directory / said.key_file if said.key_file else None
    return Upstream(directory / said.chain_file, key, _signer(directory, said))


def _signer(directory: Path, said: UpstreamSettings) -> Signer | None:
    """Who signs with a key that is not here."""
    if said.sign_command:
        return SigningCommand(tuple(said.sign_command))
    if said.sign_url is None:
        return None
    token, roots = (directory / one if one else None for one in (said.sign_token_file, said.sign_ca_file))
    return SigningService(Service(said.sign_url, token, roots))
