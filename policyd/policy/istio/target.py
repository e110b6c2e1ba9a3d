"""Which services of the mesh a policy is for: by namespace, by labels, by `targetRefs`.

Law: what is decided about is an instance's own Service; where a selector picks some of its instances only, the labels
of the instance that was reached are part of the condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policyd.mesh.model import Instance, Mesh
from policyd.policy.istio.expression import Test, both, quoted
from policyd.policy.istio.field import Place
from policyd.policy.istio.model import TargetRef
from policyd.policy.istio.read import Declared

GATEWAY_GROUP = "gateway.networking.k8s.io"


@dataclass(frozen=True, slots=True)
class Target:
    """What is selected: all of the mesh, all of `namespace`, or `services` (an id to the labels that an instance needs,
    none where all of its instances have them).
    """

    mesh: bool = False
    namespace: str = ""
    services: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def covers(self, instance: Instance) -> bool:
        """Whether a request that this instance answers is decided about here."""
        if self.mesh or (self.namespace and self.namespace == _namespace(instance)):
            return True
        labels = self.services.get(instance.service)
        return labels is not None and _bears(instance, labels)


def owners(mesh: Mesh) -> dict[str, tuple[Instance, ...]]:
    """Return the instances by their own Service: what requests are decided about."""
    found: dict[str, tuple[Instance, ...]] = {}
    for _, instance in sorted(mesh.instances.items()):
        found[instance.service] = (*found.get(instance.service, ()), instance)
    return dict(sorted(found.items()))


def labelled(labels: Mapping[str, str]) -> Test:
    """Return the test that the instance that was reached bears these labels."""
    tests = []
    for name, value in sorted(labels.items()):
        tests.append(Test(f"context.destination.labels.hasTag({quoted(name)})"))
        tests.append(Test(f"context.destination.labels.getTag({quoted(name)}) == {quoted(value)}"))
    return both(tests)


def target_of(declared: Declared, mesh: Mesh, root: str, place: Place) -> Target:
    """Resolve what a policy is for; `root` is the namespace whose policies hold in all."""
    spec = declared.spec
    references = (spec.target_ref,) if spec.target_ref else spec.target_refs
    if references:
        steps = [("targetRef",)] if spec.target_ref else [("targetRefs", at) for at in range(len(references))]
        where = [place.at(*step) for step in steps]
        found = [_reference(one, declared, mesh, there) for one, there in zip(references, where, strict=True)]
        return _noted(Target(services={id_: {} for id_ in found if id_}), place)
    labels = spec.selector.match_labels
    everywhere = declared.namespace == root
    if not labels:
        within = "" if everywhere else declared.namespace
        target = Target(mesh=everywhere, namespace=within)
        return target if any(target.covers(one) for one in mesh.instances.values()) else _noted(Target(), place)
    services: dict[str, Mapping[str, str]] = {}
    for id_, instances in owners(mesh).items():
        here = everywhere or _namespace(instances[0]) == declared.namespace
        if here and any(_bears(one, labels) for one in instances):
            services[id_] = {} if all(_bears(one, labels) for one in instances) else labels
    return _noted(Target(services=services), place)


def _noted(target: Target, place: Place) -> Target:
    if not target.services and len(place.problems) == 0:
        place.note("it selects no workload of the mesh, so it decides nothing", "compare its labels and its namespace")
    return target


def _reference(reference: TargetRef, declared: Declared, mesh: Mesh, place: Place) -> str:
    """The Service that a reference leads to, "" where it leads to none."""
    id_ = f"{reference.name}.{declared.namespace}"
    kinds = {
        ("", "Service"): owners(mesh).keys(),
        ("core", "Service"): owners(mesh).keys(),
        (GATEWAY_GROUP, "Gateway"): {one.service for one in mesh.instances.values() if one.role == "gateway"},
    }
    known = kinds.get((reference.group, reference.kind))
    if reference.namespace not in (None, declared.namespace):
        place.refuse("a target is in the policy's own namespace", "remove its `namespace`")
    elif known is None:
        message = f"a target of the kind `{reference.kind[:80]}` has no counterpart here"
        place.refuse(message, f"name a Service, or a Gateway of the group `{GATEWAY_GROUP}`")
    elif id_ in known:
        return id_
    else:
        message = f"nothing is decided about a {reference.kind.lower()} `{id_[:120]}`"
        place.refuse(message, f"there are {', '.join(sorted(known)[:12]) or 'none'}")
    return ""


def _namespace(instance: Instance) -> str:
    return instance.service.partition(".")[2]


def _bears(instance: Instance, labels: Mapping[str, str]) -> bool:
    return all(instance.labels.get(name) == value for name, value in labels.items())
