"""`policyd policy compile`: which policies a service's proxies could decide by themselves, and what prevents others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd.local.compile import Compiled
    from policyd.mesh.model import Mesh


def compile_(
    service: Annotated[
        str, typer.Option("--service", metavar="S", help="A service, as in reviews.default.", show_default=False)
    ],
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Show which policies the proxies of a service could decide by themselves, in Envoy's own RBAC filter.

    For each listener: every policy that is about the service, whether it is compiled, and otherwise the expression that
    prevents it; then the filter, whose first match decides. What is compiled gives policyd's own answers; one policy
    that is not keeps the whole listener from it. Proxies do not get these filters: policyd decides every request.
    """
    from policyd.cli import output
    from policyd.cli.instance import folder
    from policyd.cli.loaded import load_folder
    from policyd.local.compile import Compiler, listeners_of
    from policyd.local.told import alike
    from policyd.local.told import as_json as told

    live = load_folder(folder(directory), cases=False).live
    name = _service(service, live.mesh, live.declaration.workloads.defaults.namespace)
    compiler = Compiler(live.ruling)
    found = alike([compiler.compile(one) for one in listeners_of(live.mesh, name)])
    if as_json:
        listeners = [told(*one) for one in found]
        output.print_json({"service": name, "revision": live.ruling.revision, "listeners": listeners})
    else:
        output.show(*lines(name, found))


def _service(text: str, mesh: Mesh, namespace: str) -> str:
    from policyd.errors import UsageError
    from policyd.mesh.hosts import resolve
    from policyd.mesh.matching import did_you_mean

    found = resolve(text, namespace) or ""
    if found not in mesh.services:
        known = [name for one in mesh.services.values() for name in (one.id, one.name)]
        raise UsageError(f"the mesh has no service `{text}`", remedy=did_you_mean(text, known, ()))
    return found


def lines(service: str, found: Sequence[tuple[Compiled, Sequence[str]]]) -> Iterator[Any]:
    """Return what to print."""
    from policyd.cli import output
    from policyd.local.told import readable, rows, size

    if not found:
        yield f"no listener is for `{service}`"
    for at, (compiled, names) in enumerate(found):
        if at:
            yield ""
        yield f"{', '.join(names)}: {_outcome(compiled)}"
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
