"""`policyd ca entry ...`: which processes on agents' machines are which workload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from policyd.cli.lazy import group
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd._pb import authority_pb2 as pb

app = group("Registration entries: which processes get a workload's identity from the Workload API.")


@app.command()
def create(
    workload: Annotated[
        str, typer.Argument(metavar="WORKLOAD", help="A workload's name or SPIFFE ID.", show_default=False)
    ],
    selector: Annotated[
        list[str],
        typer.Option(
            "--selector",
            help="What a process must have, all of them if repeated: unix:uid:N, unix:user:NAME, unix:gid:N, "
            "unix:group:NAME, unix:path:FILE, unix:sha256:HEX. Of a pod: k8s:ns:NAME, k8s:sa:NAME, k8s:pod:NAME; of a "
            "machine's certificate: x509:cn:NAME, x509:dns:NAME, x509:sha256:HEX.",
            show_default=False,
        ),
    ],
    hint: Annotated[
        str, typer.Option("--hint", help="What tells a process several of its identities apart.", show_default=False)
    ] = "",
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Let the processes that have all selectors be a workload, on every agent's machine that may bear it.

    The agent finds out by itself what a process has; nothing that the process says counts. A path alone says little
    where users may run what they like: name a user too.
    """
    from policyd.cli import output
    from policyd.cli.values import workload_id
    from policyd.instance import folder, server

    with server(folder(directory)) as client:
        spiffe_id = workload_id(workload, client.status().trust_domain, client.instances())
        made = client.create_entry(str(spiffe_id), selector, hint)
    if as_json:
        output.print_json(_as_json(made))
    else:
        output.show(f"entry `{made.id}`: processes with {' and '.join(made.selectors)} are `{made.spiffe_id}`")


@app.command("list")
def show(directory: Dir = None, as_json: Json = False) -> None:
    """List the entries: which processes get which workload's identity."""
    from policyd.cli import output
    from policyd.instance import folder, server

    with server(folder(directory)) as client:
        entries = client.entries()
    if as_json:
        output.print_json([_as_json(one) for one in entries])
        return
    rows = [(one.id, one.spiffe_id, " ".join(one.selectors), one.hint or "-") for one in entries]
    output.show(output.table(("entry", "spiffe id", "selectors", "hint"), rows))


@app.command()
def delete(
    entry: Annotated[str, typer.Argument(metavar="ENTRY", help="As `entry list` shows it.", show_default=False)],
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Delete an entry: its processes' streams end at once, what they hold ends by itself within the hour."""
    from policyd.cli import output
    from policyd.instance import folder, server

    with server(folder(directory)) as client:
        deleted = client.delete_entry(entry)
    if as_json:
        output.print_json(_as_json(deleted))
    else:
        output.show(f"deleted `{deleted.id}`: processes with {' and '.join(deleted.selectors)} are nobody by it")


def _as_json(entry: pb.Entry) -> dict[str, object]:
    return {
        "id": entry.id,
        "spiffe_id": entry.spiffe_id,
        "selectors": list(entry.selectors),
        "hint": entry.hint,
    }
