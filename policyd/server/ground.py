"""What all parts of a server stand on, there before its folder is read: keys, journal, stores, metrics, ports.

Law: it is made once and in one order; what is found wrong here ends the start before anybody is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from policyd import __version__
from policyd.audit.group import Waiting
from policyd.audit.journal import Journal
from policyd.audit.operations import operation
from policyd.audit.stream import Health
from policyd.ca.changes import Changes
from policyd.ca.jwt_store import JwtKeyStore
from policyd.ca.open import Opened
from policyd.config.addresses import Address
from policyd.config.settings import Settings
from policyd.environment import Environment
from policyd.server.cores import default_count, usable_cores
from policyd.server.exporting import exporting
from policyd.server.journal import open_journal
from policyd.server.opening import open_folders_authority, open_jwt_keys, passphrase_of
from policyd.server.signing import LINGER_SECONDS, SigningServer
from policyd.server.state import choose_ports, runtime_folder
from policyd.server.stores import Stores, open_stores
from policyd.state_paths import StatePaths
from policyd.telemetry.metrics import Metrics

ROLE: Final = "serve"  # in the name of the journal's writer


@dataclass(frozen=True, slots=True)
class Ground:
    """`settings` are those of the start: what a change of them can move is asked of what is in force.

    `runtime` is the folder of sockets. `opened` is the authority as it was found, `jwt_keys` are those of its tokens,
    both under the `passphrase`. `deciders` is how many processes decide; `export` says how the journal's export is;
    `changes` is how agents hear of news.
    """

    directory: Path
    paths: StatePaths
    settings: Settings
    clock: Callable[[], datetime]
    runtime: Path
    passphrase: bytes | None = field(repr=False)
    opened: Opened
    jwt_keys: JwtKeyStore
    deciders: int
    metrics: Metrics
    signing: SigningServer
    journal: Journal
    export: Callable[[], Health]
    stores: Stores
    addresses: Mapping[str, Address]
    changes: Changes

    def note(self, name: str, detail: Mapping[str, object]) -> None:
        """Put on record what the server does by itself; raises JournalError."""
        self.journal.append(operation(self.clock(), name, detail))

    def shown(self) -> dict[str, str]:
        """Where it listens, by name."""
        return {name: str(address) for name, address in self.addresses.items()}


def laid(
    stack: AsyncExitStack,
    directory: Path,
    paths: StatePaths,
    settings: Settings,
    environment: Environment,
    clock: Callable[[], datetime],
    wanted: int | None,
) -> Ground:
    """Open all of it until `stack` ends; raises PolicydError. `wanted` are the processes that are to decide."""
    runtime = stack.enter_context(runtime_folder(directory, environment))
    passphrase = passphrase_of(directory, settings, environment)
    opened = open_folders_authority(directory, paths, settings, passphrase, clock)
    jwt_keys = open_jwt_keys(paths, passphrase, clock)
    count = wanted or settings.workers or default_count(len(usable_cores()))
    metrics = Metrics(1 + count)
    signing, journal = _journal(stack, paths, settings, clock, metrics)
    told = exporting(settings.audit.export, paths.journal, directory, __version__, clock, metrics)
    export = stack.enter_context(told)
    stores = open_stores(stack.enter_context(ExitStack()), paths)
    addresses = choose_ports(paths, settings.listen, count, settings.ca.bundle_endpoint, picked_from=environment.ports)
    return Ground(
        directory=directory,
        paths=paths,
        settings=settings,
        clock=clock,
        runtime=runtime,
        passphrase=passphrase,
        opened=opened,
        jwt_keys=jwt_keys,
        deciders=count,
        metrics=metrics,
        signing=signing,
        journal=journal,
        export=export,
        stores=stores,
        addresses=addresses,
        changes=Changes(),
    )


def _journal(
    stack: AsyncExitStack, paths: StatePaths, settings: Settings, clock: Callable[[], datetime], metrics: Metrics
) -> tuple[SigningServer, Journal]:
    """The journal, and the server whose calls wait for its medium: closed before the threads that wait."""
    signing = SigningServer(stack.enter_context(ExitStack()))
    waiting = Waiting(signing.pause, LINGER_SECONDS)
    journal = stack.enter_context(open_journal(paths, ROLE, settings.audit, clock, metrics, waiting))
    signing.records_in(journal)
    return signing, journal
