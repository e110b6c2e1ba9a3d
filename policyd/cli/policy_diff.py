"""`policyd policy diff OLD NEW`: what two folders, or revisions, decide differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from policyd.cli.exits import Exit
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd.cedar.policies import Policy
    from policyd.policy.diff_model import Combination, Difference, PolicyChange, Side, Tried

MAX_SHOWN: Final = 3  # requests of one combination
MAX_ROWS: Final = 200  # of one table

_CHANGES: Final = ("newly allowed", "newly denied", "condition changed")


def diff(
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="A folder, a revision, `live` or `shadow`.", show_default=False)
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="What is compared with it.", show_default=False)],
    directory: Dir = None,
    as_json: Json = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Differing policies are a difference by themselves.")
    ] = False,
) -> None:
    """Compare what two folders decide: what becomes allowed, denied, or depends on something else.

    OLD and NEW are folders; `live`, what is in force; `shadow`, the policies that are tried; or revisions, by the first
    digits of the hash, as `3f9ac2` or `revision:3f9ac2`: those of --dir, else of the other folder, else of the nearest
    one. `policyd policy diff live .` tells what a change will do, `policyd policy diff . shadow` what a trial may find.

    For every caller, method and service whose policies, groups or labels differ, requests are made from the conditions
    and cases of both sides and decided under both. Exit code 0 if no request is answered differently, 2 if one is.
    """
    from policyd.cli import output
    from policyd.cli.sides import sides
    from policyd.policy.diff import compare

    before, after = sides(old, new, directory)
    cases = [*before.cases, *after.cases]
    found = compare(before.ruling, after.ruling, cases)
    if as_json:
        output.print_json(value(found, before.ruling.revision, after.ruling.revision))
    else:
        output.show(*before.remarks, *after.remarks, *lines(found, len(cases)))
    different = found.differs or (strict and bool(found.combinations))
    raise typer.Exit(Exit.DENIED if different else Exit.OK)


def value(found: Difference, old: str, new: str) -> dict[str, Any]:
    """Return the difference of two revisions as JSON has it."""
    return {
        "different": found.differs,
        "old": old,
        "new": new,
        "compared": {
            "combinations": found.total,
            "callers": list(found.callers),
            "methods": list(found.methods),
            "services": list(found.services),
            "requests": found.requests,
            "untried_combinations": found.untried,
        },
        "only_old": list(found.only_old),
        "only_new": list(found.only_new),
        "policies": [{"old": _policy(one.old), "new": _policy(one.new)} for one in found.policies],
        "combinations": [asdict(one) | {"change": one.change} for one in found.combinations],
    }


def lines(found: Difference, cases: int) -> Iterator[Any]:
    """Return what to print: what was compared, which policies differ, then what is answered differently."""
    from policyd.cli import output
    from policyd.wording import clean

    yield from _compared(found, cases)
    for name, only in (("OLD", found.only_old), ("NEW", found.only_new)):
        if only:
            yield clean(f"only in {name}: {', '.join(only)}")
    for policy in found.policies:
        yield from _policy_lines(policy)
    for change in _CHANGES:
        rows = list(_rows([one for one in found.combinations if one.change == change]))
        if rows:
            yield from ("", f"{change}:")
            yield output.table(("CALLER", "METHOD", "SERVICE", "REQUEST", "OLD", "NEW"), rows[:MAX_ROWS])
            if len(rows) > MAX_ROWS:
                yield f"and {len(rows) - MAX_ROWS} more; `--json` has all"
    yield from _closing(found)


def _compared(found: Difference, cases: int) -> Iterator[str]:
    callers, methods, services = len(found.callers), len(found.methods), len(found.services)
    differing = len(found.combinations) + found.untried
    sizes = f"{callers} callers (anonymous is one), {methods} methods, {services} services"
    yield f"compared {sizes}: {found.total} combinations"
    yield f"  {found.total - differing} meet the same policies over the same facts, so their answers are the same"
    if differing:
        made = f"{found.requests} requests, made from conditions and {cases} cases"
        yield f"  {differing} do not: {made}, were decided under both"
    if found.untried:
        yield f"  {found.untried} of them were not tried, there are too many: nothing is said about them"


def _policy_lines(change: PolicyChange) -> Iterator[str]:
    from policyd.wording import clean

    one = change.new or change.old
    assert one is not None
    word = "changed" if change.old and change.new else "added" if change.new else "removed"
    yield ""
    yield clean(f"{word} `{one.id}` ({one.file}:{one.line})")
    for mark, policy in (("-", change.old), ("+", change.new)):
        if policy is not None:
            yield from (clean(f"  {mark} {line}") for line in policy.text.splitlines())


def _rows(combinations: Sequence[Combination]) -> Iterator[tuple[str, ...]]:
    """The first requests of each combination that are answered differently, methods with the same answers together."""
    from policyd.audit.match import short_name
    from policyd.cedar.model import Uid

    alike: dict[tuple[str, str, Tried], list[str]] = {}
    for one in combinations:
        for tried in [tried for tried in one.tried if tried.differs][:MAX_SHOWN]:
            alike.setdefault((one.caller, one.service, tried), []).append(one.method)
    for (caller, service, tried), methods in alike.items():
        where = short_name(str(Uid("Service", service)))
        yield short_name(caller), " ".join(methods), where, tried.request, _side(tried.old), _side(tried.new)


def _side(side: Side) -> str:
    by = f" by {', '.join(side.by)}" if side.by else ""
    return f"{side.word}{by}"


def _closing(found: Difference) -> Iterator[str]:
    same = [one for one in found.combinations if one.change == "no difference found"]
    if same:
        names = sorted({name for one in same for name in (*one.old, *one.new)})
        count = sum(len(one.tried) for one in same)
        which = f", though policies differ: {', '.join(f'`{name}`' for name in names)}" if names else ""
        yield ""
        yield f"no difference found for {count} requests of {len(same)} combinations{which}"
    partly = sum(not one.whole for one in found.combinations)
    if partly:
        yield f"of {partly} combinations only the first requests were tried, their conditions suggest more"
    if not found.combinations and not found.untried:
        yield "the same"


def _policy(policy: Policy | None) -> dict[str, Any] | None:
    if policy is None:
        return None
    return {"id": policy.id, "effect": policy.effect, "file": policy.file, "line": policy.line, "text": policy.text}
