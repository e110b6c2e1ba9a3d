"""`policyd ca federation ...`: the other trust domains whose workloads are known here."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policyd.cli.lazy import group
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd._pb import authority_pb2 as pb

app = group("Other trust domains whose workloads are known here: those that policyd.yaml names, or a command.")

TrustDomain = Annotated[str, typer.Argument(metavar="TRUST_DOMAIN", help="The other one.", show_default=False)]


class Profile(StrEnum):
    """How a bundle endpoint proves itself."""

    HTTPS_SPIFFE = "https_spiffe"
    HTTPS_WEB = "https_web"


@app.command()
def create(
    trust_domain: TrustDomain,
    bundle_endpoint: Annotated[
        str, typer.Option("--bundle-endpoint", metavar="URL", help="Where its bundle is published.", show_default=False)
    ] = "",
    profile: Annotated[
        Profile, typer.Option("--profile", help="How that proves itself: by an SVID, or as web servers do.")
    ] = Profile.HTTPS_SPIFFE,
    endpoint_id: Annotated[
        str,
        typer.Option("--endpoint-id", metavar="SPIFFE_ID", help="Whose SVID it is then.", show_default=False),
    ] = "",
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="FILE", help="Its first bundle.", show_default=False)
    ] = None,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Know the workloads of another trust domain by its bundle; what they may do, policies say.

    It lasts until `delete`, over restarts too. A mesh that is kept in files names it under `ca.federation` in
    policyd.yaml instead, where `policyd check` knows it as well.
    """
    from policyd._pb import authority_pb2 as pb
    from policyd.cli import output
    from policyd.cli.bundles import read_document, said
    from policyd.instance import folder, server

    request = pb.CreateFederationRequest(
        trust_domain=trust_domain,
        bundle_endpoint=bundle_endpoint,
        profile=profile.value,
        endpoint_id=endpoint_id,
        document=read_document(bundle) if bundle else b"",
    )
    with server(folder(directory)) as client:
        found = client.create_federation(request)
    if as_json:
        output.print_json(_as_json(found))
    elif found.known:
        output.show(said(found))
    else:
        output.show(f"the workloads of `{trust_domain}` are strangers until its bundle is at hand")


@app.command()
def delete(trust_domain: TrustDomain, directory: Dir = None, as_json: Json = False) -> None:
    """Let the workloads of a trust domain that `create` named be strangers again, at once."""
    from policyd.cli import output
    from policyd.instance import folder, server

    with server(folder(directory)) as client:
        found = client.delete_federation(trust_domain)
    if as_json:
        output.print_json(_as_json(found))
    else:
        output.show(f"the workloads of `{trust_domain}` are strangers")


@app.command("show")
def show_one(trust_domain: TrustDomain, directory: Dir = None, as_json: Json = False) -> None:
    """Show one other trust domain: where its bundle comes from, and what that holds; with --json the bundle itself."""
    import json

    from policyd.cli import output
    from policyd.cli.bundles import table_of
    from policyd.errors import NotFound
    from policyd.instance import folder, server
    from policyd.svid import bundle as bundles

    with server(folder(directory)) as client:
        found = next((one for one in client.federated() if one.trust_domain == trust_domain), None)
    if found is None:
        raise NotFound(f"`{trust_domain}` is not known here", remedy="look at `policyd ca federation list`")
    if as_json:
        output.print_json({**_as_json(found), "bundle": json.loads(found.document) if found.known else None})
        return
    facts = [
        ("trust domain", found.trust_domain),
        ("named by", "a command" if found.created else "policyd.yaml"),
        ("bundle from", found.bundle_endpoint or "import"),
        ("proven by", _proof(found)),
        ("problem", found.problem or ("-" if found.known else "no bundle is at hand")),
    ]
    shown: list[Any] = [output.facts(facts)]
    if found.known:
        held = bundles.read(found.document, found.trust_domain)
        shown = [output.facts([*facts, ("sequence", str(held.sequence or "-"))]), "", table_of(held)]
    output.show(*shown)


def _proof(one: pb.Federated) -> str:
    if not one.bundle_endpoint:
        return "-"
    return f"an SVID of {one.endpoint_id}" if one.endpoint_id else "its name, as web servers are"


@app.command("list")
def show(directory: Dir = None, as_json: Json = False) -> None:
    """List the other trust domains: where their bundles come from, and what is at hand."""
    from policyd.cli import output
    from policyd.instance import folder, server

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
    from policyd.cli.bundles import said
    from policyd.errors import FederationError
    from policyd.instance import folder, server

    with server(folder(directory)) as client:
        found = client.refresh_federation(trust_domain)
    if found.problem:
        remedy = "the bundle from before is used" if found.known else "its workloads are strangers until it can"
        raise FederationError(f"the bundle of `{trust_domain}` cannot be fetched: {found.problem}", remedy=remedy)
    if as_json:
        output.print_json(_as_json(found))
    else:
        output.show(said(found))


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
        "created": one.created,
    }
