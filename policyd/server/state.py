"""What a server holds of its folder's state while it runs: the lock, sockets' folder, ports, placement."""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from policyd.config.addresses import Address, ListenSettings
from policyd.config.authority import BundleEndpointSettings
from policyd.environment import PICKED_PORTS, Environment
from policyd.errors import StateError
from policyd.mesh.declaration import Declaration
from policyd.mesh.placement import Placement, place
from policyd.sources import placement as placements
from policyd.sources import ports
from policyd.sources.state import prepare_runtime, write_private
from policyd.state_paths import StatePaths, runtime_directory

ADMIN_SOCKET: Final = "admin.sock"
AUTHZ: Final = "authz"
BUNDLES: Final = "bundles"


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
def announced(paths: StatePaths, facts: Mapping[str, object], leaves: Callable[[], bool]) -> Iterator[None]:
    """server.json says where the server is for as long as it is there; raises StateError where it cannot.

    `leaves` is whether it leaves something that runs on when it ends, which is then known to the next start.
    """
    try:
        write_private(paths.server, json.dumps(facts).encode())
    except OSError as error:
        message = f"`{paths.server}` cannot be written: {error.strerror}"
        raise StateError(message, remedy="check the disk and the owner") from None
    try:
        yield
    finally:
        if leaves():
            with suppress(OSError):  # then the next start finds their ports taken, and says so
                paths.left.touch(mode=0o600)
        paths.server.unlink(missing_ok=True)


def runs_on(paths: StatePaths) -> bool:
    """Whether what ran may run on: after a crash (server.json is left), and where agents saw the orderly end.

    `policyd up` removes both before its first start: nothing of it runs then.
    """
    return paths.server.exists() or paths.left.exists()


def choose_ports(
    paths: StatePaths,
    listen: ListenSettings,
    deciders: int,
    bundles: BundleEndpointSettings | None = None,
    *,
    picked_from: range = PICKED_PORTS,
) -> dict[str, Address]:
    """Where to listen, by name; the same as last time where that is free. Raises StateError.

    Every decision process has a port of its own: `authz`, then `authz-2` and so on, which follow a port that is given.
    """
    first = listen.authz
    wanted = {"xds": listen.xds, "attestation": listen.attestation, "signing": listen.signing, "http": listen.http}
    for number in range(deciders):
        port = first.port + number if first.port else 0
        wanted[f"{AUTHZ}-{number + 1}" if number else AUTHZ] = Address(first.host, port)
    if bundles is not None:
        wanted[BUNDLES] = bundles.listen
    kept = paths.root / "ports.json"
    picked = placements.candidates(random.SystemRandom(), picked_from)
    chosen = ports.choose(wanted, ports.load(kept), placements.is_free, picked)
    ports.save(kept, chosen)
    return chosen


def decision_addresses(chosen: Mapping[str, Address]) -> tuple[Address, ...]:
    """Those of `choose_ports` that are of decision processes, in order."""
    return tuple(address for name, address in chosen.items() if name.partition("-")[0] == AUTHZ)


class Placer:
    """Gives every declared instance its ports, and keeps those of what is in force. Raises StateError.

    `ours` are the server's own ports, which nobody else gets, though nothing may listen there yet. `resumed`: proxies
    and applications run already, as after a crash of this process, so their ports are ours.
    """

    def __init__(
        self, paths: StatePaths, ours: Collection[int], *, resumed: bool, picked_from: range = PICKED_PORTS
    ) -> None:
        self._picked_from = picked_from
        self._file = paths.placement
        self._kept = self._saved = placements.load(self._file, os.getuid())
        self._held = (self._kept.ports() if resumed else frozenset()) - frozenset(ours)
        self._ours = frozenset(ours)

    def __call__(self, declaration: Declaration) -> Placement:
        """Place what is declared now; raises InvalidInput."""
        return place(
            declaration,
            self._kept,
            is_free=lambda port: port not in self._ours and placements.is_free(port),
            candidates=placements.candidates(random.SystemRandom(), self._picked_from),
            secret=lambda: secrets.token_urlsafe(24),
            held=self._held,
        )

    def keep(self, placement: Placement) -> None:
        """This one is in force from now on, also after a restart: what a refused change moves stays where it is."""
        self._save(placement)
        self._kept, self._held = placement, placement.ports()

    def take_back(self, placement: Placement) -> None:
        """This one stays in force; raises StateError where only this process knows it now."""
        self._kept, self._held = placement, placement.ports()
        self._save(placement)

    def _save(self, placement: Placement) -> None:
        if placement != self._saved:
            placements.save(self._file, placement)
            self._saved = placement
