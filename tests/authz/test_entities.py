"""The Mesh as entities."""

from __future__ import annotations

from dataclasses import replace

from policyd.authz.entities import MeshEntities
from policyd.cedar.model import Entity, Uid
from policyd.mesh.model import Group, Mesh
from policyd.spiffe import SpiffeId
from tests.authz.checks import PAGE, REVIEWS

NAMESPACE, DOMAIN = Uid("Namespace", "default"), Uid("TrustDomain", "cluster.local")


def test_a_workload_has_its_attributes_and_all_that_it_is_in(mesh: Mesh) -> None:
    assert MeshEntities(mesh).principal(REVIEWS) == Entity(
        uid=Uid("Workload", str(REVIEWS)),
        attrs={
            "trust_domain": "cluster.local",
            "path": "/ns/default/sa/bookinfo-reviews",
            "namespace": "default",
            "service_account": "bookinfo-reviews",
        },
        parents=(DOMAIN, NAMESPACE, Uid("Group", "ratings-readers")),
    )


def test_groups_are_transitive(mesh: Mesh) -> None:
    groups = {
        "inner": Group("inner", workloads=frozenset({PAGE}), services=frozenset({"reviews.default"})),
        "middle": Group("middle", groups=frozenset({"inner"})),
        "outer": Group("outer", groups=frozenset({"middle"})),
    }
    entities = MeshEntities(replace(mesh, groups=groups))
    all_three = (Uid("Group", "inner"), Uid("Group", "middle"), Uid("Group", "outer"))
    service = entities.service("reviews.default")
    assert service is not None
    assert entities.principal(PAGE).parents[2:] == all_three
    assert service.parents == (NAMESPACE, DOMAIN, *all_three)


def test_groups_of_any_shape_are_transitive_at_once(mesh: Mesh) -> None:
    ladder = {
        f"{rung}{side}": Group(f"{rung}{side}", groups=frozenset({f"{rung - 1}a", f"{rung - 1}b"} if rung else ()))
        for rung in range(40)
        for side in "ab"
    }
    chain = {f"g{at}": Group(f"g{at}", groups=frozenset({f"g{at - 1}"} if at else {"39a"})) for at in range(1500)}
    groups = {**ladder, **chain, "0a": Group("0a", workloads=frozenset({PAGE}))}
    parents = MeshEntities(replace(mesh, groups=groups)).principal(PAGE).parents
    assert set(parents[2:]) == {Uid("Group", name) for name in groups if name != "0b"}


def test_an_undeclared_identity_is_what_its_id_says(mesh: Mesh) -> None:
    groups = {"friends": Group("friends", workloads=frozenset({SpiffeId.parse("spiffe://partner.org/ns/shop/sa/web")}))}
    entities = MeshEntities(replace(mesh, groups=groups))
    assert entities.principal(SpiffeId.parse("spiffe://partner.org/ns/shop/sa/web")) == Entity(
        uid=Uid("Workload", "spiffe://partner.org/ns/shop/sa/web"),
        attrs={
            "trust_domain": "partner.org",
            "path": "/ns/shop/sa/web",
            "namespace": "shop",
            "service_account": "web",
        },
        parents=(Uid("TrustDomain", "partner.org"), Uid("Namespace", "partner.org/shop"), Uid("Group", "friends")),
    )
    assert entities.principal(SpiffeId.parse("spiffe://cluster.local/vm/7")) == Entity(
        uid=Uid("Workload", "spiffe://cluster.local/vm/7"),
        attrs={"trust_domain": "cluster.local", "path": "/vm/7"},
        parents=(DOMAIN,),
    )


def test_nobody_is_the_anonymous_one(mesh: Mesh) -> None:
    assert MeshEntities(mesh).principal(None) == Entity(Uid("Unauthenticated", "anonymous"))


def test_labels_are_the_instances_own(mesh: Mesh) -> None:
    entities = MeshEntities(mesh)
    assert entities.labels("reviews-v2") == Entity(
        Uid("Labels", "reviews-v2"), tags={"app": "reviews", "version": "v2"}
    )
    assert entities.labels("nobody") == Entity(Uid("Labels", "nobody"))


def test_what_policies_name_is_found(mesh: Mesh) -> None:
    entities = MeshEntities(mesh)
    stranger = Uid("Workload", "spiffe://cluster.local/vm/7")
    assert entities.named(Uid("Service", "reviews.default")) == entities.service("reviews.default")
    assert entities.named(stranger) == entities.principal(SpiffeId.parse(stranger.id))
    assert entities.named(Uid("Workload", "me")) is None
    assert entities.named(Uid("Service", "me.default")) is None


def test_what_is_the_same_as_in_the_mesh_before_is_the_very_same_entity(mesh: Mesh) -> None:
    before = MeshEntities(mesh)
    moved = dict(mesh.instances)
    name = next(iter(moved))
    moved[name] = replace(moved[name], labels={"app": "other"})
    changed = replace(mesh, instances=moved)
    after = MeshEntities(changed, before)
    assert list(after.content()) == list(MeshEntities(changed).content())
    assert after.texts() == MeshEntities(changed).texts()
    assert [one for one in moved if after.labels(one) is not before.labels(one)] == [name]


def test_of_other_groups_or_another_trust_domain_nothing_is_kept(mesh: Mesh) -> None:
    before = MeshEntities(mesh)
    some = {"some": Group("some", workloads=frozenset(mesh.workloads), services=frozenset(mesh.services))}
    for other in (replace(mesh, groups=some), replace(mesh, trust_domain="other.example")):
        assert MeshEntities(other, before).texts() == MeshEntities(other).texts()
        assert list(MeshEntities(other, before).content()) == list(MeshEntities(other).content())
