"""files.md: the folder's format, from the models that read it, with what is refused as not supported yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from docs.pages.models import fields, parts, summary, title
from docs.pages.tables import code, codes, table
from policyd.mesh.files import GroupsFile, WorkloadsFile
from policyd.mesh.istio.kinds import KINDS, LATER
from policyd.policy.case_yaml import _CaseSpec, _TableSpec
from policyd.policy.checks import _CheckSpec
from policyd.policy.meanings import MEANINGS
from policyd.sources.files import FILES, FOLDERS
from policyd.strict import Model

HOLDS: Final[Mapping[str, str]] = {
    "policyd.yaml": "[settings](settings.md), all optional",
    "workloads.yaml": "[what runs, and where](#workloadsyaml)",
    "groups.yaml": "[sets of callers and services](#groupsyaml) that policies may name",
    "checks.yaml": "[requests that `up` sends](#checksyaml) once all is up",
    "issuance.cedar": "who may obtain which certificate; without it the built-in policy holds",
    "operators.cedar": "who may look and act besides the folder's owner",
    "mesh": "[Gateway](#gateway), [VirtualService](#virtualservice), [DestinationRule](#destinationrule), "
    "[ServiceEntry](#serviceentry), [WorkloadEntry](#workloadentry), [WorkloadGroup](#workloadgroup), "
    "[Service](#service), [Sidecar](#sidecar), "
    "[RequestAuthentication](#requestauthentication), [PeerAuthentication](#peerauthentication) "
    "and [Telemetry](#telemetry)",
    "policies": "traffic policies, one file a service; the [schema](schema.md) says what they may name",
    "credentials": "`tls.crt`, `tls.key`, `ca.crt` of gateways; only the gateway reads its key, of mode 0600",
    "cases": "[policy tests](#cases); checked before a change takes effect",
    "jwks": "public keys of issuers (JWKS) that a [RequestAuthentication](#requestauthentication) names as `jwksUri`",
}
INTRODUCTION: Final = """# The folder

A mesh is a folder. `policyd check DIR` reads all of it and prints every problem with file and line; `policyd serve`
refuses what `check` refuses. An unknown field is an error, never ignored. In YAML a duplicate key is an error, and
only `true` and `false` are booleans.
"""
STATE: Final = "State is in `.policyd/`, readable by its owner alone; keep it out of version control."


def files() -> Iterator[str]:
    """Every file of a folder, and every field of each."""
    yield INTRODUCTION
    listed = ((code(name), HOLDS[name]) for name in FILES)
    inside = ((codes(f"{name}/*{suffix}" for suffix in endings), HOLDS[name]) for name, endings in FOLDERS.items())
    secret = (code("credentials/NAME/"), HOLDS["credentials"])
    yield from table(("file", "what it holds"), (*listed, *inside, secret))
    yield from (STATE, "")
    yield from _file("workloads.yaml", WorkloadsFile)
    yield from _file("groups.yaml", GroupsFile)
    yield from _listed("checks.yaml", "A list of requests, sent in their order.", each=_CheckSpec)
    text = "A list; an entry is one request or a table of them. `*.json` has the form of Cedar's own `run-tests`."
    yield from _listed("cases", text, one_request=_CaseSpec, a_table=_TableSpec)
    yield from ("## mesh", "", "A file has one resource or several, with `---` between them.", "")
    for kind, model in sorted(KINDS.items()):
        yield from _kind(kind, model)


def _file(name: str, model: type[Model]) -> Iterator[str]:
    yield from (f"## {name}", "")
    yield from _tables(model)


def _listed(name: str, text: str, **models: type[Model]) -> Iterator[str]:
    yield from (f"## {name}", "", text, "")
    for caption, model in models.items():
        yield from (f"{caption.replace('_', ' ').capitalize()}:", "")
        yield from _tables(model)


def _tables(model: type[Model]) -> Iterator[str]:
    yield from fields(model, MEANINGS[model.__name__])
    for part in parts(model):
        yield from (f"### {title(part)}", "")
        yield from summary(part)
        yield from fields(part, MEANINGS[part.__name__])


def _kind(kind: str, model: type[Model]) -> Iterator[str]:
    yield from (f"### {kind}", "")
    yield from summary(model)
    yield from fields(model)
    for part in parts(model):
        if kind == "Gateway" or title(part) != "Metadata":  # the same for all
            yield from (f"#### {title(part)}", "")
            yield from summary(part)
            yield from fields(part)
    why = LATER[kind].why
    if reasons := {name: text for name, text in sorted(why.items()) if text}:
        yield from (f"Refused by name in a {kind}, with what to do instead:", "")
        yield from table(("field", "why"), ((code(name), text) for name, text in reasons.items()))
    if rest := sorted(why.keys() - reasons.keys()):
        yield from (f"Not supported yet, and refused by name in a {kind}: {codes(rest)}.", "")
