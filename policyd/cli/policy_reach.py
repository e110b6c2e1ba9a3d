"""`policyd policy who-can` and `what-can`: everybody's answers in a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from policyd.cli.options import Dir, Header, Json

if TYPE_CHECKING:
    from policyd.authz.ruling import Ruling
    from policyd.policy.reach import Reach, WhoCan

_WORDS: Final = {"allow": "yes", "deny": "-", "conditional": "if"}

Past = Annotated[
    str | None,
    typer.Option(
        "--revision",
        metavar="HASH",
        help="By what was in force then, as records and `policyd policy revisions` name it.",
    ),
]


def who_can(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The HTTP method.", show_default=False)],
    url: Annotated[str, typer.Argument(metavar="URL", help="As in http://reviews:9080/reviews/0.", show_default=False)],
    header: Header = None,
    revision: Past = None,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Show who may make a request: every declared workload and anonymous, with the policy.

    `if` is said where it depends on what is not given: headers, addresses, the time, the user, the instance.
    """
    from policyd.cli import output
    from policyd.policy.header_form import headers
    from policyd.policy.reach import who_can as decide

    found = decide(method, url, _ruling(directory, revision), headers(header or ()))
    if as_json:
        callers = [{"caller": caller} | asdict(one) for caller, one in found.callers.items()]
        output.print_json({"service": found.service, "identified": found.identified, "callers": callers})
    else:
        output.show(*who_lines(found, f"{method} {url}"))


def what_can(
    caller: Annotated[
        str, typer.Argument(metavar="FROM", help="Who asks, as in `policyd authorize`.", show_default=False)
    ],
    revision: Past = None,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Show what a caller may: every service and method, on any path.

    `if` is said where it depends on what is not given: the path, headers, addresses, the time, the user, the instance.
    """
    from policyd.cli import output
    from policyd.policy.reach import what_can as decide

    found = decide(caller, _ruling(directory, revision))
    if as_json:
        services = {
            service: {method: asdict(one) for method, one in methods.items()} for service, methods in found.items()
        }
        output.print_json({"caller": caller, "services": services})
    else:
        output.show(*what_lines(found, caller))


def _ruling(directory: Path | None, revision: str | None) -> Ruling:
    """What decides by the folder's files, or decided under a revision."""
    from policyd.instance import folder
    from policyd.offline.loaded import load_folder

    where = folder(directory)
    if revision is None:
        return load_folder(where, cases=False).live.ruling

    from policyd.offline.revisions import load_revision

    return load_revision(where, revision)[1].ruling


def who_lines(found: WhoCan, request: str) -> Iterator[Any]:
    """Return what to print: a row for each caller that may, and how many may not."""
    from policyd.audit.match import short_name
    from policyd.cli import output
    from policyd.wording import clean

    may = {caller: one for caller, one in found.callers.items() if one.verdict != "deny"}
    rows = [(short_name(caller), _WORDS[one.verdict], ", ".join(one.by), _if(one)) for caller, one in may.items()]
    if rows:
        yield output.table(("CALLER", "MAY", "BY", "CONDITION"), rows)
    conditional = sum(one.verdict == "conditional" for one in may.values())
    under = f", {conditional} of them under a condition" if conditional else ""
    yield f"{len(may)} of {len(found.callers)} callers may {clean(request)}{under}"
    if not found.identified:
        yield "this service verifies no callers, so everybody is anonymous to it"
    elif any(caller.startswith("Unauthenticated::") for caller in may):
        yield "callers without an identity do not get past mTLS there, whatever policies say"


def what_lines(found: Mapping[str, Mapping[str, Reach]], caller: str) -> Iterator[Any]:
    """Return what to print: services by methods, then the conditions, each once."""
    from policyd.cli import output
    from policyd.wording import clean

    methods = list(next(iter(found.values()), {}))
    rows = [
        (_name(service), *(_WORDS[reach.verdict] for reach in reached.values())) for service, reached in found.items()
    ]
    if not rows:
        yield "there are no services"
        return
    yield output.table(("SERVICE", *methods), rows)
    yield ""
    yield from _conditions(found)
    if all(reach.verdict == "deny" for reached in found.values() for reach in reached.values()):
        yield f"`{clean(caller)}` may nothing"


def _conditions(found: Mapping[str, Mapping[str, Reach]]) -> Iterator[str]:
    """One line for the methods of a service that have the same answer."""
    from policyd.wording import clean

    for service, reached in found.items():
        told: dict[str, list[str]] = {}
        for method, one in reached.items():
            if one.verdict != "deny":
                told.setdefault(_answer(one), []).append(method)
        for answer, methods in told.items():
            yield clean(f"{_name(service)} {', '.join(methods)}: {answer}")


def _answer(reach: Reach) -> str:
    by = ", ".join(f"`{policy}`" for policy in reach.by)
    return f"by {by}" if reach.verdict == "allow" else _if(reach)


def _if(reach: Reach) -> str:
    """What has to hold, and what must not."""
    against = [one for one in reach.conditions if one.startswith("unless ")]
    needed = [one for one in reach.conditions if one not in against]
    return ", ".join(filter(None, [f"if {' or if '.join(needed)}" if needed else "", *against]))


def _name(service: str) -> str:
    from policyd.audit.match import short_name
    from policyd.cedar.model import Uid

    return short_name(str(Uid("Service", service)))
