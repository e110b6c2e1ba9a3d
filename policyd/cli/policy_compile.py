"""`policyd policy compile`: which policies a service's proxies could decide by themselves, and what prevents others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policyd.cli.exits import Exit
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd.local.compile import Compiled
    from policyd.local.enforcing import Enforced
    from policyd.mesh.model import Mesh

Deciders = Callable[[Sequence[str]], str]


def compile_(
    service: Annotated[
        str,
        typer.Option(
            "--service", metavar="S", help="A service, as in reviews.default; without it, all.", show_default=False
        ),
    ] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 2 where a listener is not compiled whole.")
    ] = False,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Show which policies the proxies of a service could decide by themselves, in Envoy's own RBAC filter.

    For each listener: every policy that is about the service, whether it is compiled, and otherwise the expression that
    prevents it; then the filter, whose first match decides. What is compiled gives policyd's own answers; one policy
    that is not keeps the whole listener from it. Proxies get these filters where an Enforcement of mesh/ says so: who
    decides is told too, and why policyd does where the sidecar was to. Without --service, a line for each listener.
    """
    from policyd.cli import output
    from policyd.instance import folder
    from policyd.local.compile import Compiler, listeners_of
    from policyd.local.told import alike
    from policyd.local.told import as_json as told
    from policyd.offline.loaded import load_folder

    live = load_folder(folder(directory), cases=False).live
    namespace = live.declaration.workloads.defaults.namespace
    names = [_service(service, live.mesh, namespace)] if service else live.mesh.services
    compiler = live.enforced.compiler or Compiler(live.ruling)
    deciders = partial(_who_decides, live.mesh, live.enforced)
    found = {name: alike([compiler.compile(one) for one in listeners_of(live.mesh, name)]) for name in sorted(names)}
    if as_json:
        services = [
            {"service": name, "listeners": [told(*one) | {"decides": deciders(one[1])} for one in of]}
            for name, of in found.items()
        ]
        output.print_json({"revision": live.ruling.revision, "services": services})
    elif service:
        output.show(*(line for name, of in found.items() for line in lines(name, of, deciders)))
    else:
        output.show(summary(found, deciders))
    if strict and not all(compiled.is_exact for of in found.values() for compiled, _ in of):
        raise typer.Exit(Exit.DENIED)


def _service(text: str, mesh: Mesh, namespace: str) -> str:
    from policyd.errors import NotFound
    from policyd.mesh.hosts import resolve
    from policyd.policy.resolving import nearest_of

    found = resolve(text, namespace) or ""
    if found not in mesh.services:
        known = [*mesh.services, *(one.name for one in mesh.services.values() if one.namespace == namespace)]
        raise NotFound(f"the mesh has no service `{text[:80]}`", remedy=nearest_of(text, known))
    return found


def _who_decides(mesh: Mesh, enforced: Enforced, listeners: Sequence[str]) -> str:
    """Who decides at listeners that are compiled alike, and why it is policyd where an Enforcement wants the sidecar.

    Terms may differ from listener to listener; where no Enforcement can hold, that is why.
    """
    from policyd.local.enforcing import why_never

    local = set(enforced.local)
    whys = ((one, enforced.why.get(one, "") or why_never(mesh.listeners[one])) for one in listeners)
    said = ("its sidecar" if one in local else why for one, why in whys)
    told = dict.fromkeys("policyd" + (f", for {why}" if why else "") if why != "its sidecar" else why for why in said)
    return "; ".join(told)


def summary(found: Mapping[str, Sequence[tuple[Compiled, Sequence[str]]]], deciders: Deciders) -> Any:
    """Return a row for each service and outcome."""
    from policyd.cli import output
    from policyd.local.told import size

    rows = [
        (
            service,
            ", ".join(names),
            _outcome(compiled),
            f"{size(compiled):,}" if compiled.is_exact else "-",
            deciders(names),
        )
        for service, of in found.items()
        for compiled, names in of
    ]
    return output.table(("SERVICE", "LISTENERS", "OUTCOME", "BYTES", "DECIDES"), rows)


def lines(service: str, found: Sequence[tuple[Compiled, Sequence[str]]], deciders: Deciders) -> Iterator[Any]:
    """Return what to print."""
    from policyd.cli import output
    from policyd.local.told import readable, rows, size
    from policyd.wording import clean

    if not found:
        yield f"no listener is for `{service}`"
    for at, (compiled, names) in enumerate(found):
        if at:
            yield ""
        yield f"{', '.join(names)}: {_outcome(compiled)}"
        yield clean(f"  decided by {deciders(names)}")
        yield from (f"  {one}" for one in compiled.obstacles)
        if compiled.obstacles:
            continue
        policies = [(row.policy, row.effect, row.outcome, row.why) for row in rows(compiled)]
        yield output.table(("POLICY", "EFFECT", "OUTCOME", "WHY"), policies)
        if compiled.is_exact:
            yield ""
            yield f"the filter, {size(compiled):,} bytes; the first line that matches decides"
            yield output.table(("DOES", "BY", "WHEN"), list(readable(compiled)))


def _outcome(compiled: Compiled) -> str:
    if compiled.is_exact:
        return "compiled whole"
    return "not compiled" if compiled.obstacles else f"not compiled, for {len(compiled.left)} of its policies"
