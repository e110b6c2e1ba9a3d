"""The authority of the folder and the issuer that signs with it, put together from what is in force."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from policyd.audit.journal import Journal
from policyd.authz.operators import may
from policyd.ca import rotator
from policyd.ca.elsewhere import Signer
from policyd.ca.files import read_passphrase
from policyd.ca.holdings import Holding
from policyd.ca.issuer import Issuer, Ports
from policyd.ca.jwt_store import JwtKeyStore
from policyd.ca.open import Opened, open_authority
from policyd.ca.passphrase_command import told_passphrase
from policyd.ca.revocations import FILE, Revocations, forbids
from policyd.ca.rotator import Rotator
from policyd.ca.signing_command import SigningCommand
from policyd.ca.signing_service import SigningService
from policyd.ca.upstream import Upstream
from policyd.ca.web import Service
from policyd.cedar.model import Decision, Request
from policyd.config.authority import UpstreamSettings
from policyd.config.settings import Settings
from policyd.environment import PASSPHRASE, Environment
from policyd.errors import KeyFileError
from policyd.keeper import Keeper
from policyd.sources.files import Folder, digest
from policyd.sources.relations import Relations, beside
from policyd.spiffe import SpiffeId
from policyd.state_paths import StatePaths

_log = structlog.get_logger("policyd.server")


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


def make_rotator(
    opened: Opened,
    issuer: Issuer,
    paths: StatePaths,
    passphrase: bytes | None,
    tokens: JwtKeyStore,
    *,
    keeper: Keeper,
    journal: Journal,
    clock: Callable[[], datetime],
    present: Callable[[], Collection[str]],
    holdings: Callable[[], Collection[Holding]],
    changed: Callable[[], object],
) -> Rotator:
    """Gives the issuer new keys, step by step; the operators' policies in force decide."""

    def decide() -> Decision:
        live = keeper.live
        return may(live.operators, live.ruling.entities, live.mesh.trust_domain, os.getuid(), "rotate", clock())

    ports = rotator.Ports(
        clock=clock,
        random=secrets.token_bytes,
        decide=decide,
        record=journal.append,
        present=present,
        holdings=holdings,
        changed=changed,
        life=lambda: timedelta(seconds=keeper.live.settings.ca.ttl),
    )
    return Rotator(paths.ca, issuer, opened.held, ports, passphrase, tokens)


def make_issuer(
    opened: Opened,
    jwt_keys: JwtKeyStore,
    keeper: Keeper,
    journal: Journal,
    clock: Callable[[], datetime],
    *,
    issued: Callable[[str], object],
    revoked: Callable[[SpiffeId], bool],
    revoked_serial: Callable[[str], bool],
    refused: Callable[[str], object],
) -> Issuer:
    """Issues what the policies and the mesh in force at that moment grant; `issued` and `refused` count."""

    def decide(request: Request) -> Decision:
        return keeper.live.issuance.engine.decide(request)

    ports = Ports(
        mesh=lambda: keeper.live.mesh,
        decide=decide,
        record=journal.keep,
        count=issued,
        clock=clock,
        random=secrets.token_bytes,
        jwt_keys=lambda: jwt_keys.keys,
        revision=lambda: keeper.live.issuance.revision,
        ttl=lambda: timedelta(seconds=keeper.live.settings.ca.ttl),
        refused=refused,
        revoked=revoked,
        revoked_serial=revoked_serial,
        token_issuer=lambda: keeper.live.settings.ca.token_issuer or "",
    )
    return Issuer(opened.authority, ports)


def with_revoked(folder: Folder, revocations: Revocations) -> Folder:
    """A folder with the policies that deny what is revoked; they are no file of its own."""
    text = forbids(revocations.all())
    if not text:
        return folder
    texts = {**folder.texts, FILE: text}
    return replace(folder, texts=texts, digest=digest({FILE: text, "": folder.digest}))


def with_created(folder: Folder, relations: Relations) -> Folder:
    """A folder with the trust domains that a command named; they are no file of its own."""
    return beside(folder, relations.text())


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
