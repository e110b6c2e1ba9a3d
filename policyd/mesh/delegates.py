"""VirtualServices become whole: each rule that delegates is replaced by the rules of its delegate.

Law: a delegate narrows what was delegated to it, never widens it; what cannot be met by both is refused.
Precedence as in Istio: what the delegate's rule says holds, for the rest what the delegating rule says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from policyd.errors import Problem
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.istio.common import export_rank
from policyd.mesh.istio.destination import Destination
from policyd.mesh.istio.http_route import HttpRoute
from policyd.mesh.istio.matches import HttpMatch, StringMatch
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.matching import did_you_mean

INHERITED: Final = (
    "rewrite", "timeout", "retries", "fault", "mirror", "mirror_percentage", "mirror_percent", "mirrors",
    "cors_policy", "headers",
)  # fmt: skip
_WHOLE: Final = ("uri", "scheme", "method", "authority")
_MAPPED: Final = ("headers", "without_headers", "query_params")


def whole(declaration: Declaration, problems: list[Problem]) -> tuple[VirtualService, ...]:
    """Return the VirtualServices that have hosts, in their order, without a `delegate` left in them."""
    declared = declaration.of(VirtualService)
    known = {found.resource.id: found.resource for found in declared if found.resource.is_delegate}
    used: set[str] = set()
    made = [_merged(found, known, used, problems) for found in declared if not found.resource.is_delegate]
    for found in declared:
        if found.resource.is_delegate and found.resource.id not in used:
            message = f"no VirtualService delegates to `{found.resource.id}`, and it has no `hosts`"
            problems.append(found.problem("reference", message, ("spec",), "add `hosts`, or remove it"))
    return tuple(made)


def _merged(
    root: Declared[VirtualService], known: Mapping[str, VirtualService], used: set[str], problems: list[Problem]
) -> VirtualService:
    rules: list[HttpRoute] = []
    for at, rule in enumerate(root.resource.spec.http):
        if rule.delegate is None:
            rules.append(rule)
            continue
        id_ = f"{rule.delegate.namespace or root.resource.namespace}/{rule.delegate.name}"
        leaf = known.get(id_)
        path = ("spec", "http", at, "delegate")
        if leaf is None:
            remedy = did_you_mean(id_, known, problems) or "declare it, without `hosts` and `gateways`"
            problems.append(root.problem("reference", f"no VirtualService `{id_}` is a delegate", path, remedy))
            continue
        used.add(id_)
        if export_rank(leaf.spec.export_to, leaf.namespace, root.resource.namespace) is None:
            message = f"the delegate `{id_}` is not exported to the namespace `{root.resource.namespace}`"
            problems.append(root.problem("reference", message, path, "add it to the delegate's `exportTo`"))
        for of, inner in enumerate(leaf.spec.http):
            if (made := _narrowed(rule, _placed(inner, leaf))) is None:
                message = f"rule {of + 1} of the delegate `{id_}` can match nothing of what is delegated here"
                problems.append(root.problem("conflict", message, path, "let its `match` be narrower than this one"))
            else:
                rules.append(made)
    return _with_rules(root.resource, rules)


def _with_rules(resource: VirtualService, rules: Iterable[HttpRoute]) -> VirtualService:
    spec = resource.spec.model_copy(update={"http": tuple(rules)})
    return resource.model_copy(update={"spec": spec})


def _placed(rule: HttpRoute, leaf: VirtualService) -> HttpRoute:
    """Return a rule whose names mean the same in any namespace as they do in its own."""

    def place(destination: Destination) -> Destination:
        short = "." not in destination.host
        return destination.model_copy(update={"host": f"{destination.host}.{leaf.namespace}"} if short else {})

    changes: dict[str, Any] = {
        "route": tuple(one.model_copy(update={"destination": place(one.destination)}) for one in rule.route),
        "mirrors": tuple(one.model_copy(update={"destination": place(one.destination)}) for one in rule.mirrors),
        "match": tuple(
            match.model_copy(update={"gateways": tuple(leaf.gateway_id(name) for name in match.gateways)})
            for match in rule.match
        ),
    }
    if rule.mirror is not None:
        changes["mirror"] = place(rule.mirror)
    return rule.model_copy(update={name: new for name, new in changes.items() if new != getattr(rule, name)})


def _narrowed(root: HttpRoute, leaf: HttpRoute) -> HttpRoute | None:
    """Return the delegate's rule within the delegating one; None where one of its blocks contradicts that."""
    matches = _both(root.match, leaf.match)
    if matches is None:
        return None
    said = root.model_fields_set - leaf.model_fields_set
    mirrored = leaf.mirror is not None or leaf.mirrors
    inherited = [name for name in INHERITED if name in said and not (mirrored and name.startswith("mirror"))]
    changes: dict[str, Any] = {name: getattr(root, name) for name in inherited}
    return leaf.model_copy(update={**changes, "match": matches, "name": _name(root.name, leaf.name)})


def _name(root: str | None, leaf: str | None) -> str | None:
    return "-".join(name for name in (root, leaf) if name) or None


def _both(root: tuple[HttpMatch, ...], leaf: tuple[HttpMatch, ...]) -> tuple[HttpMatch, ...] | None:
    """Return the blocks that hold where one of each side does; every block of the leaf must be within one."""
    if not root or not leaf:
        return root or leaf
    found: list[HttpMatch] = []
    for inner in leaf:
        within = [made for outer in root if (made := _one(outer, inner)) is not None]
        if not within:
            return None
        found += within
    return tuple(found)


def _one(root: HttpMatch, leaf: HttpMatch) -> HttpMatch | None:
    if _contradict(root, leaf):
        return None
    changes: dict[str, Any] = {"name": _name(root.name, leaf.name)}
    for name in (*_WHOLE, "port", "source_namespace", "stat_prefix"):
        if getattr(leaf, name) is None:
            changes[name] = getattr(root, name)
    for name in (*_MAPPED, "source_labels"):
        changes[name] = {**getattr(root, name), **getattr(leaf, name)}
    changes["gateways"] = leaf.gateways or root.gateways
    return leaf.model_copy(update=changes | {"ignore_uri_case": root.ignore_uri_case or leaf.ignore_uri_case})


def _contradict(root: HttpMatch, leaf: HttpMatch) -> bool:
    if any(_wider(getattr(root, name), getattr(leaf, name)) for name in _WHOLE):
        return True
    if any(
        _wider(getattr(root, name).get(key), value) for name in _MAPPED for key, value in getattr(leaf, name).items()
    ):
        return True
    if root.uri is not None and leaf.uri is not None and root.ignore_uri_case != leaf.ignore_uri_case:
        return True
    if any(root.source_labels.get(label, value) != value for label, value in leaf.source_labels.items()):
        return True
    if root.gateways and leaf.gateways and not set(leaf.gateways) <= set(root.gateways):
        return True
    pairs = ((root.port, leaf.port), (root.source_namespace, leaf.source_namespace))
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def _wider(root: StringMatch | None, leaf: StringMatch | None) -> bool:
    """Tell whether a leaf's condition may hold where the root's does not."""
    if root is None or leaf is None or root.presence or root == leaf:
        return False
    if root.prefix is None or leaf.regex is not None or leaf.presence:
        return True
    return not (leaf.prefix if leaf.exact is None else leaf.exact or "").startswith(root.prefix)  # type: ignore[union-attr]
