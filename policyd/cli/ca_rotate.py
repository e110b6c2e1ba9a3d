"""`policyd ca rotate ...`: new keys for the authority, step by step, without an outage."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policyd.cli.lazy import group
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd._pb import rotation_pb2 as pb

app = group("New keys for the authority: prepare, activate, taint, revoke; each step waits for all agents.")


class What(StrEnum):
    """What is replaced."""

    ROOT = "root"
    INTERMEDIATE = "intermediate"
    TOKEN = "token"  # noqa: S105 - the key that signs tokens


class Which(StrEnum):
    """Whose step it is: the authority's, or that of the keys of tokens."""

    AUTHORITY = "authority"
    TOKEN = "token"  # noqa: S105 - as above


WhichOne = Annotated[Which, typer.Argument(metavar="WHICH", help="The authority's keys, or the key that signs tokens.")]


Without = Annotated[
    list[str] | None,
    typer.Option(
        "--without",
        metavar="AGENT",
        help="An agent that is not waited for, though it may be cut off; repeatable.",
        show_default=False,
    ),
]


@app.command()
def status(directory: Dir = None, as_json: Json = False) -> None:
    """Show how far a rotation is, who is waited for, and which step comes next."""
    from policyd.instance import folder, server

    with server(folder(directory)) as client:
        _show(client.rotation(), as_json=as_json)


@app.command()
def prepare(
    what: Annotated[
        What, typer.Argument(metavar="WHAT", help="What is replaced; a new root brings a new intermediate.")
    ],
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Make new keys. A new root, or key of tokens, is published to all agents at once; nothing is signed by it yet."""
    _step("prepare", directory, what=what.value, as_json=as_json)


@app.command()
def activate(
    which: WhichOne = Which.AUTHORITY,
    without: Without = None,
    early: Annotated[
        bool, typer.Option("--early", help="A key of tokens, before all who verify them can have asked for it.")
    ] = False,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Let the new key sign, once every connected agent and its Envoys have confirmed that they trust its root.

    Agents named with --without are not waited for: as long as they are behind, everybody shows the way over the old
    root as well, so that they are not cut off by this step.
    """
    _step("activate", directory, what=_what(which), without=without, early=early, as_json=as_json)


@app.command()
def taint(without: Without = None, directory: Dir = None, as_json: Json = False) -> None:
    """Have everything that the old key signed renewed now. Who trusts the old root alone is cut off from here on."""
    _step("taint", directory, without=without, as_json=as_json)


@app.command()
def revoke(
    which: WhichOne = Which.AUTHORITY,
    without: Without = None,
    early: Annotated[
        bool, typer.Option("--early", help="Before the last certificate of the old key has ended for certain.")
    ] = False,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Forget the old key: it goes from the disk, and a root from every bundle. It waits until nothing uses it.

    What agents and their Envoys use is known. What was issued by hand is not: without --early, a day has to pass.
    """
    _step("revoke", directory, what=_what(which), without=without, early=early, as_json=as_json)


@app.command()
def abort(which: WhichOne = Which.AUTHORITY, directory: Dir = None, as_json: Json = False) -> None:
    """Go a step back: the old key signs again, or what was prepared is forgotten. Not after `taint`."""
    _step("abort", directory, what=_what(which), as_json=as_json)


def _what(which: Which) -> str:
    return "" if which is Which.AUTHORITY else which.value


def _step(
    step: str,
    directory: Path | None,
    *,
    as_json: bool,
    what: str = "",
    without: list[str] | None = None,
    early: bool = False,
) -> None:
    from policyd.instance import folder, server

    with server(folder(directory)) as client:
        _show(client.rotate(step, what, without or (), early=early), as_json=as_json)


def _show(reply: pb.RotationReply, *, as_json: bool) -> None:
    from policyd.cli import output
    from policyd.cli.show import as_dict

    if as_json:
        output.print_json(as_dict(reply))
    else:
        output.show(*lines(reply))


def lines(reply: pb.RotationReply) -> Sequence[Any]:
    """Return what to print."""
    from policyd.cli import output
    from policyd.wording import moment, short

    rows = [
        (
            one.state,
            moment(one.since),
            short(one.root_sha256),
            moment(one.root_ends),
            short(one.intermediate_sha256),
            moment(one.intermediate_ends),
        )
        for one in reply.generations
    ]
    facts = [("bundle", f"sequence {reply.sequence}"), ("next step", reply.next or "none is under way")]
    if reply.next_at:
        facts.append(("by itself", reply.next_at))
    shown: list[Any] = [output.facts(facts), ""]
    shown.append(output.table(("state", "since", "root", "ends", "intermediate", "ends"), rows))
    tokens = [(one.state, moment(one.published), moment(one.signs), one.kid[:16]) for one in reply.token_keys]
    if tokens:
        shown += ["", output.table(("key of tokens", "published", "signs from", "kid"), tokens)]
    if reply.waited:
        waited = [(one.agent, one.why + (" (left out)" if one.left_out else "")) for one in reply.waited]
        shown += ["", output.table(("waited for", "why"), waited)]
    return shown
