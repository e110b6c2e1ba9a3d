"""`policyd policy import istio`: AuthorizationPolicies to Cedar policies that decide the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from policyd.cli.lazy import group
from policyd.cli.options import Json

if TYPE_CHECKING:
    from policyd.mesh.model import Mesh
    from policyd.policy.istio.translate import Options, Translation

STDIN: Final = "-"

app = group("Bring policies from elsewhere.")

Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE", help="YAML with AuthorizationPolicies; `-` is the input.", show_default=False),
]
OfMesh = Annotated[
    Path | None,
    typer.Option(
        "--mesh",
        metavar="DIR",
        help="The mesh's folder, for the workloads that selectors select. Without it: as --dir elsewhere.",
        show_default=False,
    ),
]
Namespace = Annotated[
    str | None, typer.Option(help="Of policies without one; else the folder's default.", show_default=False)
]
TrustDomain = Annotated[str | None, typer.Option(metavar="TD", help="Istio's; else the folder's.", show_default=False)]
Alias = Annotated[
    list[str] | None, typer.Option(metavar="TD", help="A trust domain alias; repeatable.", show_default=False)
]
RootNamespace = Annotated[str, typer.Option(help="Whose policies hold in all namespaces.", metavar="NS")]
HostsWithoutPort = Annotated[
    bool, typer.Option("--hosts-without-port", help="Take it that callers send no port in Host.")
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Write the files there, over none.", show_default=False)]
DryRuns = Annotated[
    Path | None,
    typer.Option(
        "--dry-runs",
        metavar="DIR",
        help="Write there what would hold with dry runs enforced: a shadow folder.",
        show_default=False,
    ),
]


class Draft(NamedTuple):
    """Policies as they were translated, and the folder that they are for; None where they are only shown."""

    made: Translation
    place: Path | None


@app.command()
def istio(
    files: Files,
    mesh: OfMesh = None,
    namespace: Namespace = None,
    trust_domain: TrustDomain = None,
    alias: Alias = None,
    root_namespace: RootNamespace = "istio-system",
    hosts_without_port: HostsWithoutPort = False,
    out: Out = None,
    dry_runs: DryRuns = None,
    as_json: Json = False,
) -> None:
    """Turn Istio's AuthorizationPolicies into Cedar policies that decide the same, one file a service.

    What has no exact form is refused, with its line and the reason, and then nothing is written: exit code 3. Example:
    `policyd policy import istio authz.yaml --mesh DIR --out DIR/policies`. With `--dry-runs DIR/next` too, `shadow:
    {policies: next}` in policyd.yaml tries what Istio had as dry runs.
    """
    from policyd.instance import folder
    from policyd.policy.istio.identity import TrustDomains
    from policyd.policy.istio.translate import Options

    texts = _read(files)
    found, default = _mesh(folder(mesh), files)
    domains = TrustDomains(_domain(trust_domain or found.trust_domain), tuple(_domain(one) for one in alias or ()))
    options = Options(namespace or default, domains, root_namespace, hosts_without_port)
    drafts = _drafts(texts, found, options, out, dry_runs)
    _keep(drafts)
    _show(drafts, as_json)


def _drafts(
    texts: Mapping[str, str], mesh: Mesh, options: Options, out: Path | None, tried: Path | None
) -> list[Draft]:
    """What is enforced, and what would hold with dry runs where that is asked for; raises InvalidInput.

    All of them load, as the server would load them.
    """
    from policyd.authz.path import canonical_path
    from policyd.cedar.policies import load_policies
    from policyd.cedar.schema import parse_schema
    from policyd.policy.istio.read import read_policies
    from policyd.policy.istio.translate import translate
    from policyd.sources.shipped import shipped_schema

    policies, schema = read_policies(texts, options.namespace), parse_schema(shipped_schema("mesh"))
    drafts = [Draft(translate(policies, mesh, options, canonical_path), out)]
    if tried is not None:
        drafts.append(Draft(translate(policies, mesh, replace(options, dry_runs=True), canonical_path), tried))
    for draft in drafts:
        load_policies(draft.made.files, schema)
    return drafts


def _keep(drafts: Sequence[Draft]) -> None:
    """Write each to its folder, or none of them; raises InvalidInput where other files are there, and StateError."""
    placed = [(made.files, place) for made, place in drafts if place is not None]
    for files, place in placed:
        _check_free(files, place)
    for files, place in placed:
        _write(files, place)


def _read(files: Sequence[str]) -> dict[str, str]:
    """Return the texts by name; raises UsageError for one that cannot be read, InvalidInput for what is no text."""
    from policyd.errors import InvalidInput, Problem, UsageError
    from policyd.yaml import MAX_BYTES, too_large

    problems: list[Problem] = []
    texts: dict[str, str] = {}
    for name in files:
        try:
            with sys.stdin.buffer if name == STDIN else Path(name).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                problems.append(too_large(name, len(data), MAX_BYTES))
            texts[name] = data.decode()
        except UnicodeDecodeError as error:
            remedy = "save the file as UTF-8"
            problems.append(Problem("text", f"the byte at {error.start} is no UTF-8", name, remedy=remedy))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise UsageError(f"`{name}` cannot be read: {why}", remedy="name a file that is there") from None
    if problems:
        raise InvalidInput(problems)
    return texts


def _mesh(directory: Path, files: Sequence[str]) -> tuple[Mesh, str]:
    """Return the folder's Mesh and its default namespace; files that are imported are left out of it."""
    from policyd.config.settings import SETTINGS_FILE, parse_settings
    from policyd.mesh.build import build
    from policyd.mesh.declare import declare
    from policyd.mesh.placement import assumed
    from policyd.sources.files import read_folder

    imported = {Path(name).resolve() for name in files if name != STDIN}
    read = read_folder(directory)
    texts = {path: text for path, text in read.texts.items() if (directory / path).resolve() not in imported}
    settings = parse_settings(texts.get(SETTINGS_FILE, ""))
    declaration = declare(texts)
    return build(declaration, settings.trust_domain, assumed(declaration)), declaration.workloads.defaults.namespace


def _domain(name: str) -> str:
    from policyd.errors import SpiffeIdError, UsageError
    from policyd.spiffe import check_trust_domain

    try:
        return check_trust_domain(name)
    except SpiffeIdError as error:
        raise UsageError(error.message, remedy=error.remedy) from None


def _check_free(files: Mapping[str, str], out: Path) -> None:
    """Raise InvalidInput where another file is there already."""
    from policyd.errors import InvalidInput, Problem

    remedy = "move it away, or write to another folder"
    there = [name for name, text in files.items() if _differs(out / name, text)]
    if there:
        raise InvalidInput([Problem("file", "is there already", str(out / name), remedy=remedy) for name in there])


def _write(files: Mapping[str, str], out: Path) -> None:
    """Write new files."""
    from policyd.errors import StateError

    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            descriptor = os.open(
                out / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
            )
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StateError(f"`{out}` cannot be written: {reason}", remedy="check owner, mode and disk") from None


def _differs(path: Path, text: str) -> bool:
    """Whether something else than `text` is there."""
    try:
        return path.read_bytes() != text.encode()
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _show(drafts: Sequence[Draft], as_json: bool) -> None:
    from policyd.cli import output
    from policyd.wording import clean

    if as_json:
        output.print_json(_json(drafts))
        return
    output.show(*(clean(f"note: {one}") for one in drafts[0].made.notes), stream=output.stderr())
    for made, place in drafts:
        for name, text in made.files.items():
            if place is not None:
                output.show(clean(f"{place / name}: written"))
            else:
                output.show(f"// ---- {name}\n{clean(text, limit=1 << 20)}")


def _json(drafts: Sequence[Draft]) -> dict[str, Any]:
    """The same for machines."""
    made, out = drafts[0]
    notes = [{"message": one.message, "file": one.file, "line": one.line, "remedy": one.remedy} for one in made.notes]
    value: dict[str, Any] = {"files": dict(made.files), "written": str(out) if out else None, "notes": notes}
    for tried, place in drafts[1:]:
        value |= {"dry_runs": {"files": dict(tried.files), "written": str(place)}}
    return value
