"""`policyd ca federation ...`: the other trust domains whose workloads are known here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from policyd.cli.lazy import group
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd._pb import authority_pb2 as pb

app = group("Other trust domains whose workloads are known here; policyd.yaml names them under `ca.federation`.")


@app.command("list")
def show(directory: Dir = None, as_json: Json = False) -> None:
    """List the other trust domains: where their bundles come from, and what is at hand."""
    from policyd.cli import output
    from policyd.cli.instance import folder, server

    with server(folder(directory)) as client:
        found = client.federated()
    if as_json:
        output.print_json([_as_json(one) for one in found])
        return
    headers = ("trust domain", "bundle from", "sequence", "roots", "keys of tokens", "problem")
    output.show(output.table(headers, [_cells(one) for one in found]))


@app.command()
def refresh(
    trust_domain: Annotated[
        str, typer.Argument(metavar="TRUST_DOMAIN", help="As policyd.yaml names it.", show_default=False)
    ],
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Ask another trust domain's bundle endpoint now, and say what came of it."""
    from policyd.cli import output
    from policyd.cli.instance import folder, server
    from policyd.errors import FederationError

    with server(folder(directory)) as client:
        found = client.refresh_federation(trust_domain)
    if found.problem:
        remedy = "the bundle from before is used" if found.known else "its workloads are strangers until it can"
        raise FederationError(f"the bundle of `{trust_domain}` cannot be fetched: {found.problem}", remedy=remedy)
    if as_json:
        output.print_json(_as_json(found))
    else:
        output.show(said(found))


def said(one: pb.Federated) -> str:
    """What is at hand, in one line."""
    numbers = f"sequence {one.sequence}, roots {one.roots}, keys of tokens {one.jwt_keys}"
    return f"the workloads of `{one.trust_domain}` are known: {numbers}"


def _cells(one: pb.Federated) -> tuple[str, ...]:
    source = f"{one.bundle_endpoint} ({one.profile})" if one.bundle_endpoint else "import"
    numbers = [str(number) if one.known else "-" for number in (one.sequence, one.roots, one.jwt_keys)]
    return (one.trust_domain, source, *numbers, one.problem or ("-" if one.known else "no bundle is at hand"))


def _as_json(one: pb.Federated) -> dict[str, object]:
    return {
        "trust_domain": one.trust_domain,
        "bundle_endpoint": one.bundle_endpoint or None,
        "profile": one.profile or None,
        "endpoint_id": one.endpoint_id or None,
        "known": one.known,
        "sequence": one.sequence if one.known else None,
        "roots": one.roots,
        "jwt_keys": one.jwt_keys,
        "problem": one.problem or None,
    }
