"""What Cedar does not say of a policy set that it accepts: policies without effect, and policies with too much.

Law: what is told is sure for this mesh, or says `may`; a policy that matches is never called one that does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cedarpy import pst

from policyd.cedar.lexer import tokens_of
from policyd.cedar.model import Uid
from policyd.cedar.policies import Policy, PolicySet
from policyd.cedar.schema import Schema
from policyd.cedar.shadow import Sets, is_shadow
from policyd.errors import SpiffeIdError
from policyd.mesh.model import Mesh
from policyd.policy.covering import Covers
from policyd.policy.examined import Constraint, Examined, examine, named_in, types_in
from policyd.policy.finding_model import Finding
from policyd.policy.outcomes import TRUE, Known, narrowed, never_carried, outcomes
from policyd.policy.outline import Part, Span
from policyd.policy.universe import PRINCIPALS, RESOURCES, Universe, nearest
from policyd.spiffe import SpiffeId
from policyd.yaml import load_one

GROUPS_FILE = "groups.yaml"


def find(policy_set: PolicySet, schema: Schema, universe: Universe, texts: Mapping[str, str]) -> list[Finding]:
    """Everything found in the traffic policies of a folder, by place; `texts` are all its files."""
    examined = examine(policy_set.policies, schema, universe, texts)
    found = [finding for one in examined for finding in (*_scope(one, universe), *_conditions(one))]
    never = {finding.policy for finding in found if finding.severity == "warning"}
    found += (one for one in _together(examined, universe) if one.policy not in never)  # once is enough
    found += _unused_groups(universe, texts)
    return sorted(found, key=_place_of)


def find_all(sets: Sets, schema: Schema, universe: Universe, texts: Mapping[str, str]) -> list[Finding]:
    """As `find`, of the active policies, and of those that are tried beside them as if the trial were over."""
    found = find(sets.active, schema, universe, texts)
    if sets.shadow is None:
        return found
    said = {(one.code, one.policy, one.message) for one in found}
    tried = {(one.file, one.id) for one in sets.shadow.policies} - {(one.file, one.id) for one in sets.active.policies}
    for one in find(sets.shadow, schema, universe, texts):
        if (one.file, one.policy) in tried and (one.code, one.policy, one.message) not in said:
            found.append(one)
    found += (_tried(policy) for policy in sets.shadow.policies if is_shadow(policy))
    return sorted(found, key=_place_of)


def _tried(policy: Policy) -> Finding:
    message = f"`{policy.id}` is tried beside the active policies, and enforces nothing"
    remedy = "remove `@shadow` to put it in force"
    return Finding("PD0402", message, policy.file, policy.line, remedy=remedy, policy=policy.id)


def _place_of(one: Finding) -> tuple[str, int, int, str]:
    return one.file, one.line, one.column, one.code


def _scope(one: Examined, universe: Universe) -> Iterator[Finding]:
    tree, outline = one.policy.tree, one.outline
    for constraint, types, span in (
        (tree.principal, types_in(tree.principal, PRINCIPALS), outline.principal),
        (tree.resource, types_in(tree.resource, RESOURCES), outline.resource),
    ):
        for code, why, remedy in _never_in(constraint, types, universe):
            yield one.finding(code, f"`{one.policy.id}` never matches: {why}", span, remedy)


def _never_in(constraint: Constraint, types: frozenset[str], universe: Universe) -> Iterator[tuple[str, str, str]]:
    """Why no request is in this part of a scope, and what to do."""
    uid = named_in(constraint)
    if uid is None:
        return
    mesh = universe.mesh
    if uid.type == "Service":
        yield from _service(uid.id, universe)
    elif universe.can_be_in(types, uid):
        return
    elif uid.type == "Workload":
        yield from _workload(uid.id, universe)
    elif uid.type == "Group" and uid.id not in mesh.groups:
        yield "PD0103", f"there is no group `{uid.id}`", nearest(uid.id, mesh.groups, "declare it in groups.yaml")
    elif uid.type == "Group":
        kinds = " or ".join(sorted(f"{one.lower()}s" for one in types - {"Unauthenticated"}))
        yield "PD0105", f"the group `{uid.id}` has no {kinds}", "add a member in groups.yaml, or remove the policy"
    elif uid.type == "Namespace":
        remedy = nearest(uid.id, universe.namespaces(), "declare what is in it, or remove the policy")
        yield "PD0104", f"the namespace `{uid.id}` has nothing of that kind in it", remedy
    else:
        yield "PD0104", f"`{uid}` has nothing of that kind in it", f"this mesh is `{mesh.trust_domain}`"


def _service(name: str, universe: Universe) -> Iterator[tuple[str, str, str]]:
    mesh = universe.mesh
    if name not in mesh.services:
        whole = next((one.id for one in mesh.services.values() if one.name == name), "")
        remedy = nearest(name, mesh.services, "declare it, or remove the policy")
        remedy = f"did you mean `{whole}`?" if whole else remedy
        yield "PD0101", f"there is no service `{name}`", remedy
        return
    instances = mesh.instances_of(name)
    if instances and name not in universe.decided_as:
        others = " or ".join(f"`{other}`" for other in sorted({instance.service for instance in instances}))
        why = f"requests to `{name}` are decided as requests to {others}, with which it shares a port"
        yield "PD0106", why, f"write the policy for {others}"


def _workload(text: str, universe: Universe) -> Iterator[tuple[str, str, str]]:
    try:
        SpiffeId.parse(text)
    except SpiffeIdError as error:
        meant = _account(text, universe.mesh)
        yield "PD0102", error.message, f"did you mean `{meant}`?" if meant else error.remedy
        return
    remedy = nearest(text, map(str, universe.mesh.workloads), "declare it, or remove the policy")
    yield "PD0102", f"there is no workload `{text}`", remedy


def _account(name: str, mesh: Mesh) -> str:
    """The SPIFFE ID of a workload that is called by another name of it; "" where none is."""
    if name in mesh.instances:
        return str(mesh.instances[name].workload)
    bearers = {one.workload for one in mesh.instances.values() if name in (one.service, one.service.split(".")[0])}
    accounts = {one for one in mesh.workloads if one.service_account == name}
    found = accounts or bearers
    return str(min(found)) if len(found) == 1 else ""


def _conditions(one: Examined) -> Iterator[Finding]:
    """What is wrong with the conditions, up to the first that makes all later ones pointless."""
    known = one.known
    for part in one.parts:
        # alone first: what never holds by itself is said so, not blamed on what stands before it
        never = _never(one, part, one.known, "PD0201") or _never(one, part, known, "PD0202")
        if never is not None:
            yield never
            return
        yield from _pointless(one, part)
        known = narrowed(part.expr, part.wanted, known)


def _never(one: Examined, part: Part, known: Known, code: str) -> Finding | None:
    if part.wanted in outcomes(part.expr, known):
        return None
    outcome = "false" if part.wanted else "true"
    why = (never_carried(part.expr, known) if part.wanted else None) or (
        f"this is {outcome} for every request that its scope lets through"
        if code == "PD0201"
        else f"this is {outcome} whenever what stands before it lets a request through"
    )
    carried = part.wanted and never_carried(part.expr, known) is not None
    remedy = "ask for what requests carry, or remove the policy" if carried else "correct it, or remove the policy"
    message = f"`{one.policy.id}` never matches: {why}"
    return one.finding("PD0203" if carried else code, message, part.span, remedy)


def _pointless(one: Examined, part: Part) -> Iterator[Finding]:
    """What holds always, and what may be meant otherwise: an exception that never applies."""
    found = outcomes(part.expr, one.known)
    if not part.wanted and True not in found:
        why = never_carried(part.expr, one.known) or "this is false for every request"
        yield one.finding("PD0204", f"this exception of `{one.policy.id}` never applies: {why}", part.span, "remove it")
    elif part.wanted and found == TRUE:
        yield one.finding("PD0204", f"this condition of `{one.policy.id}` always holds", part.span, "remove it")


def _together(examined: list[Examined], universe: Universe) -> Iterator[Finding]:
    unconditional = [one for one in examined if _always(one)]
    forbids = Covers((one for one in unconditional if one.policy.effect == "forbid"), universe)
    permits = Covers((one for one in unconditional if one.policy.effect == "permit"), universe)
    for one in examined:
        yield from _against(one, forbids, permits)
        if one.policy.effect == "permit" and _always(one):
            yield from _too_much(one)


def _always(one: Examined) -> bool:
    return all(outcomes(part.expr, one.known) == frozenset({part.wanted}) for part in one.parts)


def _against(one: Examined, forbids: Covers, permits: Covers) -> Iterator[Finding]:
    forbid = forbids.covering(one)
    if forbid is not None and one.policy.effect == "permit":
        remedy = "narrow the forbid, or remove this permit"
        message = f"`{one.policy.id}` permits nothing: `{forbid.policy.id}` ({_place(forbid)}) forbids all of it"
        yield one.finding("PD0301", message, one.outline.effect, remedy)
        return
    wider = forbid if one.policy.effect == "forbid" else permits.covering(one)
    if wider is not None:
        message = (
            f"`{one.policy.id}` adds nothing: `{wider.policy.id}` ({_place(wider)}) {one.policy.effect}s all of it"
        )
        yield one.finding("PD0303", message, one.outline.effect, "remove one of them")


def _too_much(one: Examined) -> Iterator[Finding]:
    tree = one.policy.tree
    everyone = isinstance(tree.principal, pst.ScopeAny)
    span = Span(one.outline.effect.start, one.outline.resource.end)
    if everyone and isinstance(tree.action, pst.ScopeAny) and isinstance(tree.resource, pst.ScopeAny):
        message = f"`{one.policy.id}` permits every request of everyone, also of callers without an identity"
        yield one.finding("PD0302", message, span, "name the caller, the action or the service, or add a condition")
    elif everyone:
        message = f"`{one.policy.id}` is open to every caller, also to those without an identity"
        remedy = "if that is meant, say so in a comment; else `principal is Workload` or one of them"
        yield one.finding("PD0304", message, one.outline.principal, remedy)


def _place(one: Examined) -> str:
    return f"{one.policy.file}:{one.policy.line}"


def _unused_groups(universe: Universe, texts: Mapping[str, str]) -> Iterator[Finding]:
    """Groups that no policy of any of the three sets names, nor a group that one names."""
    named = {uid.id for name, text in texts.items() if name.endswith(".cedar") for uid in _groups_named(text)}
    used = {name for name in universe.mesh.groups if named & {name, *_groups_above(name, universe)}}
    unused = [name for name in universe.mesh.groups if name not in used]
    if not unused or GROUPS_FILE not in texts:
        return
    document = load_one(texts[GROUPS_FILE], GROUPS_FILE)
    for name in unused:
        place = document.find(["groups", name])
        message = f"no policy names the group `{name}`"
        yield Finding("PD0401", message, GROUPS_FILE, place.line, place.column, len(name), "remove it, or use it")


def _groups_named(text: str) -> Iterable[Uid]:
    tokens = list(tokens_of(text))
    for first, mark, last in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if first.text == "Group" and mark.text == "::":
            yield Uid("Group", last.text.strip('"'))


def _groups_above(name: str, universe: Universe) -> set[str]:
    return {uid.id for uid in universe.ancestors(Uid("Group", name)) if uid.type == "Group"}
