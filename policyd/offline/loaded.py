"""A folder checked as the server checks it, without starting anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from policyd.cedar.http import HttpFacts
from policyd.cedar.shadow import Sets
from policyd.errors import InvalidInput, Problem
from policyd.mesh.model import Mesh
from policyd.mesh.placement import assumed
from policyd.policy.checks import Check, parse_checks
from policyd.policy.finding_model import Finding
from policyd.policy.findings import find_all
from policyd.policy.resolving import as_client, resolve_form
from policyd.policy.universe import universe_of
from policyd.reload.live import Live, Schemas, shipped_schemas
from policyd.reload.load import load
from policyd.reload.parsed import CHECKS_FILE
from policyd.reload.unread import every_problem
from policyd.sources.files import Folder, UnreadFolder, digest, read_folder
from policyd.sources.relations import Relations, beside
from policyd.sources.shadow import FolderReader
from policyd.spiffe import SpiffeId
from policyd.state_paths import state_paths
from policyd.xds.resources.model import Control

NOWHERE: Final = Control("127.0.0.1", (1,), SpiffeId.server("cluster.local"))  # nobody asks for decisions offline


@dataclass(frozen=True, slots=True)
class Question:
    """A check, and what its names mean in the mesh; `caller` is the SPIFFE ID that asks, "" for anonymous."""

    check: Check
    facts: HttpFacts

    @property
    def caller(self) -> str:
        """Who asks."""
        return str(self.facts.principal) if self.facts.principal else ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A folder's texts and what they came to."""

    folder: Folder
    live: Live
    questions: tuple[Question, ...]
    findings: tuple[Finding, ...]
    unread: tuple[Problem, ...] = ()  # what the server would know besides, and we could not look at

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What works, and is probably not what was meant."""
        found = (one.problem() for one in self.findings if one.severity == "warning")
        return (*self.unread, *self.live.warnings, *found)

    @property
    def directory(self) -> Path:
        """Where it lies."""
        return self.folder.directory


def load_folder(directory: Path, *, cases: bool = True, shadow: Path | None = None) -> Loaded:
    """Read and check everything that `policyd serve` would load; raises InvalidInput with every problem.

    Ports that the folder leaves open are assumed, so nothing is taken and no state is made. Without `cases` those are
    not run, so that who asks about policies that are not right yet gets an answer. `shadow` is as `serve` has it.
    Other trust domains that a command made known are known here too, where the state may be read.
    """
    try:
        read = FolderReader(directory, shadow)()
    except UnreadFolder as error:
        raise every_problem(error, shipped_schemas(), lambda rest: _checked(rest, cases=cases)[0]) from None
    folder, unread = _checked(read, cases=cases)
    live = load_texts(folder, shipped_schemas())
    return Loaded(folder, live, _questions(folder, live.mesh), findings(live, folder), unread)


def _checked(read: Folder, *, cases: bool) -> tuple[Folder, tuple[Problem, ...]]:
    """A folder as it is checked, and what could not be looked at."""
    folder, unread = _with_created(read)
    if cases:
        return folder, unread
    texts = {path: text for path, text in folder.texts.items() if path not in folder.below("cases")}
    return replace(folder, texts=texts, digest=digest(texts)), unread


def texts_of(directory: Path) -> Mapping[str, str]:
    """The files of a folder whose lines are shown; none where it cannot be read."""
    try:
        return read_folder(directory).texts
    except UnreadFolder as error:
        return error.rest.texts if error.rest else {}


def _with_created(folder: Folder) -> tuple[Folder, tuple[Problem, ...]]:
    file = state_paths(folder.directory).relations
    try:
        file.stat()
    except FileNotFoundError:
        return folder, ()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        message = f"what `policyd ca federation create` made known cannot be looked at, so it is unknown here: {why}"
        return folder, (Problem("relations_unread", message, str(file), remedy="check as the state's owner"),)
    return beside(folder, Relations(file).text()), ()


def load_texts(folder: Folder, schemas: Schemas) -> Live:
    """Check what was read already; ports are assumed, and nobody is sent what proxies would get."""
    return load(folder, schemas, assumed, NOWHERE)


def findings(live: Live, folder: Folder) -> tuple[Finding, ...]:
    """Return what Cedar does not say of the policies in force, and of those that are tried beside them."""
    ruling = live.ruling
    universe = universe_of(live.mesh, ruling.entities.content())
    shadow = ruling.shadow.policy_set if ruling.shadow else None
    return tuple(find_all(Sets(ruling.policy_set, shadow), ruling.schema, universe, folder.every_text))


def _questions(folder: Folder, mesh: Mesh) -> tuple[Question, ...]:
    """Resolve the names in checks.yaml."""
    problems: list[Problem] = []
    questions = []
    for check in parse_checks(folder.text(CHECKS_FILE) or "", CHECKS_FILE):
        try:
            facts = resolve_form(check.form, mesh, datetime.now(UTC))
            questions.append(Question(check, as_client(facts, check.client, mesh)))
        except InvalidInput as error:
            problems += [Problem(p.code, p.message, CHECKS_FILE, check.line, remedy=p.remedy) for p in error.problems]
    if problems:
        raise InvalidInput(problems)
    return tuple(questions)
