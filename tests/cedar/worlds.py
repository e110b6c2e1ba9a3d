"""Strategies: policies of every scope form with conditions that hold, fail and err, over hierarchies of any depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from hypothesis import strategies as st

from policyd.cedar.model import Entity, Request, Uid
from tests.cedar.requests import http_request, ref

GROUPS = tuple(Uid("Group", name) for name in ("g0", "g1", "g2", "g3", "g4"))  # one may be in those behind it only
PRINCIPALS = (
    Uid("Workload", "a"),
    Uid("Workload", 'q"\\é\n'),
    Uid("Workload", "s"),  # the id of a Service too
    Uid("Unauthenticated", "anonymous"),
)
RESOURCES = (Uid("Service", "s"), Uid("Service", "t"), Uid("Host", "s"))
METHODS = ("GET", "HEAD", "PUT", "DELETE", "other")
CASES = len(PRINCIPALS) * len(RESOURCES) * len(METHODS)  # requests of one world

ERRING = (
    "when { context.request.segments * 9223372036854775807 > 0 }",  # overflows on two segments
    'unless { Service::"none".name == "x" }',  # there is no such entity
)
CONDITIONS = (
    "",
    *ERRING,
    'when { context.request.path == "/a" }',
    "unless { context.request.segments > 1 }",
    'when { context.request.headers.hasTag("x") } unless { context.request.headers.getTag("x") == "1" }',
    'when { principal in Group::"g2" }',
    "when { principal in resource || resource in principal }",
    'when { resource is Service && resource.hasTag("t") && resource.getTag("t") == "1" }',
    'when { context.time > datetime("2026-11-23T12:00:00.000Z") }',
    'when { action in [Action::"write", Action::"HEAD"] }',
    'when { Action::"GET" in Action::"read" && Group::"g0" in Group::"g0" }',
)


def literal(uid: Uid) -> str:
    """As policies write it."""
    escaped = uid.id.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{uid.type}::"{escaped}"'


def scopes(variable: str, own: Sequence[Uid]) -> tuple[str, ...]:
    """Every form of a constraint on a principal or a resource."""
    types = sorted({uid.type for uid in own} - {"Unauthenticated"})
    groups = [literal(uid) for uid in (*GROUPS, *own)]
    return (
        variable,
        *(f"{variable} is {one}" for one in types),
        *(f"{variable} == {literal(uid)}" for uid in own),
        *(f"{variable} in {group}" for group in groups),
        *(f"{variable} is {one} in {group}" for one in types for group in groups),
    )


ACTIONS = (
    "action",
    *(f'action == Action::"{name}"' for name in ("GET", "PUT", "connect")),
    *(f'action in Action::"{name}"' for name in ("http", "read", "write", "HEAD")),
    'action in [Action::"write", Action::"GET"]',
    'action in [Action::"read", Action::"HEAD", Action::"http"]',
    "action in []",
)


def _often_all(forms: Sequence[str]) -> st.SearchStrategy[str]:
    """Half of the time the first form, which holds everything: else few policies would meet in one request."""
    return st.one_of(st.just(forms[0]), st.sampled_from(forms))


policies = st.tuples(
    st.sampled_from(("permit", "forbid", "permit")),
    _often_all(scopes("principal", PRINCIPALS)),
    _often_all(ACTIONS),
    _often_all(scopes("resource", RESOURCES)),
    st.one_of(st.sampled_from(ERRING), st.sampled_from(CONDITIONS), st.sampled_from(CONDITIONS)),
).map(lambda parts: f"{parts[0]} ({parts[1]}, {parts[2]}, {parts[3]}) {parts[4]};")

texts = st.lists(policies, min_size=4, max_size=12).map(
    lambda found: "\n".join(f'@id("id-{len(found) - at}") {one}' for at, one in enumerate(found))
)

hierarchies = st.fixed_dictionaries(
    {uid: st.sets(st.sampled_from(GROUPS), max_size=2) for uid in (*PRINCIPALS[:3], *RESOURCES)}
    | {uid: st.sets(st.sampled_from(GROUPS[at + 1 :]), max_size=2) for at, uid in enumerate(GROUPS[:-1])}
)


@dataclass(frozen=True)
class World:
    """Who is directly in what, and what comes with a request."""

    parents: Mapping[Uid, set[Uid]]
    path: str
    headers: Mapping[str, str]
    tags: Mapping[str, str]

    @cached_property
    def above(self) -> Mapping[Uid, set[Uid]]:
        """All ancestors of each."""

        def climb(uid: Uid) -> set[Uid]:
            return {one for parent in self.parents.get(uid, ()) for one in (parent, *climb(parent))}

        return {uid: climb(uid) for uid in (*PRINCIPALS, *RESOURCES)}

    def request(self, principal: Uid, method: str, resource: Uid, *, whole: bool) -> Request:
        """A request; `whole` with all ancestors as parents, as the engine wants it, else with the direct ones."""
        base = http_request(method=method, path=self.path)
        named = tuple(self._entity(uid, whole=whole) for uid in (principal, resource))
        headers = Entity(Uid("Headers", "request"), tags=self.headers)
        entities = (*named, headers, base.entities[3])
        request = {**base.context["request"], "headers": ref(headers.uid)}
        return replace(
            base,
            principal=principal,
            resource=resource,
            entities=entities,
            context={**base.context, "request": request},
        )

    @cached_property
    def groups(self) -> list[Entity]:
        """The groups with their direct parents."""
        return [self._entity(uid, whole=False) for uid in GROUPS]

    def _entity(self, uid: Uid, *, whole: bool) -> Entity:
        parents = self.above[uid] if whole else self.parents.get(uid, ())
        attrs = {"name": uid.id} if uid.type in ("Service", "Host") else {}
        return Entity(uid, attrs, tuple(sorted(parents)), self.tags if uid.type == "Service" else {})


worlds = st.builds(
    World,
    hierarchies,
    st.sampled_from(["/a", "/a/b"]),
    st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["1", "2"])),
    st.dictionaries(st.just("t"), st.sampled_from(["1", "2"])),
)
