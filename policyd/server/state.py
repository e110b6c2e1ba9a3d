"""What a server holds of its folder's state while it runs: the lock, sockets' folder, journal, ports, placement."""

from __future__ import annotations

import fcntl
import os
import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from policyd.audit.appender import Limits
from policyd.audit.journal import Journal, Observer, writer_name
from policyd.config import Address, AuditSettings, Environment, ListenSettings, StatePaths, runtime_directory
from policyd.errors import StateError
from policyd.mesh.declare import Declaration
from policyd.mesh.placement import Placement, place
from policyd.sources import placement as placements
from policyd.sources import ports
from policyd.sources.state import prepare_runtime

ROLE: Final = "serve"  # in the names of the journal's writers
ADMIN_SOCKET: Final = "admin.sock"


@contextmanager
def exclusively(paths: StatePaths) -> Iterator[None]:
    """Hold the state folder's lock; the kernel ends it with us, so that no stale lock can be. Raises StateError."""
    try:
        descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        remedy = "check the disk, and what is there instead of a file of our own"
        raise StateError(f"`{paths.lock}` cannot be used: {error.strerror}", remedy=remedy) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            folder = paths.root.parent
            remedy = f"end it with `policyd down --dir {folder}`"
            raise StateError(f"`{folder}` is served already", remedy=remedy) from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def runtime_folder(directory: Path, environment: Environment) -> Iterator[Path]:
    """The folder of sockets, removed at the end as far as nobody else uses it."""
    runtime = prepare_runtime(runtime_directory(directory, environment, os.getuid()), os.getuid())
    try:
        yield runtime
    finally:
        (runtime / ADMIN_SOCKET).unlink(missing_ok=True)
        for folder in (runtime, runtime.parent):
            try:
                folder.rmdir()
            except OSError:  # an agent, or another folder's server, still has its sockets there
                break


@contextmanager
def open_journal(
    paths: StatePaths, audit: AuditSettings, clock: Callable[[], datetime], observer: Observer
) -> Iterator[Journal]:
    """The journal of this server, as the settings want it; raises StateError or JournalError."""
    journal = Journal(
        paths.journal,
        writer_name(paths.journal, ROLE, lambda: secrets.token_hex(4)),
        clock,
        limits=Limits(),
        durability=audit.durability,
        on_full=audit.on_full,
        observer=observer,
    )
    try:
        yield journal
    finally:
        journal.close()


def choose_ports(paths: StatePaths, listen: ListenSettings) -> dict[str, Address]:
    """Where to listen, by name; the same as last time where that is free. Raises StateError."""
    wanted = {"xds": listen.xds, "authz": listen.authz, "attestation": listen.attestation, "http": listen.http}
    kept = paths.root / "ports.json"
    picked = placements.candidates(random.SystemRandom())
    chosen = ports.choose(wanted, ports.load(kept), placements.is_free, picked)
    ports.save(kept, chosen)
    return chosen


class Placer:
    """Gives every declared instance its ports, and keeps those of what is in force. Raises StateError.

    `resumed`: proxies and applications run already, as after a crash of this process, so their ports are ours.
    """

    def __init__(self, paths: StatePaths, *, resumed: bool) -> None:
        self._file = paths.placement
        self._kept = placements.load(self._file, os.getuid())
        self._held = self._kept.ports() if resumed else frozenset()

    def __call__(self, declaration: Declaration) -> Placement:
        """Place what is declared now; raises InvalidInput."""
        return place(
            declaration,
            self._kept,
            is_free=placements.is_free,
            candidates=placements.candidates(random.SystemRandom()),
            secret=lambda: secrets.token_urlsafe(24),
            held=self._held,
        )

    def keep(self, placement: Placement) -> None:
        """This one is in force from now on, also after a restart: what a refused change moves stays where it is."""
        if placement != self._kept:
            placements.save(self._file, placement)
        self._kept, self._held = placement, placement.ports()
