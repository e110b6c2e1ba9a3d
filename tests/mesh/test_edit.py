"""Resources put into files and taken out of them: the rest stays as it is, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.errors import InvalidInput
from policyd.mesh.edit import Change, Edit, ResourceId, edit, kind_of, named, pieces

A = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {x: 1}\n"
B = "# about b\napiVersion: v1\nkind: Service\nmetadata: {name: b}  # the name\nspec: {x: 1}\n"
TWO = f"# the file\n{A}---\n{B}"


def service(name: str, namespace: str = "default") -> ResourceId:
    return ResourceId("Service", namespace, name)


def changed(name: str, value: int = 2) -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{x: {value}}}\n"


@pytest.mark.parametrize(
    ("texts", "apply", "remove", "expected"),
    [
        ({}, changed("a"), [],
         Edit((Change(service("a"), "created", "mesh/service-a.yaml"),), {"mesh/service-a.yaml": changed("a")})),
        ({"mesh/x.yaml": TWO}, changed("a"), [],
         Edit((Change(service("a"), "changed", "mesh/x.yaml"),),
              {"mesh/x.yaml": f"# the file\n{changed('a')}---\n{B}"})),
        ({"mesh/x.yaml": TWO}, changed("b"), [],
         Edit((Change(service("b"), "changed", "mesh/x.yaml"),),
              {"mesh/x.yaml": f"# the file\n{A}---\n# about b\n{changed('b')}"})),
        ({"mesh/x.yaml": TWO}, f"# new words\n{changed('b')}", [],
         Edit((Change(service("b"), "changed", "mesh/x.yaml"),),
              {"mesh/x.yaml": f"# the file\n{A}---\n# new words\n{changed('b')}"})),
        ({"mesh/x.yaml": TWO}, f"{changed('a', 1)}---\n# nothing\n---\n{changed('b', 1)}", [],
         Edit((Change(service("a"), "unchanged", "mesh/x.yaml"), Change(service("b"), "unchanged", "mesh/x.yaml")))),
        ({"mesh/x.yaml": TWO}, "", [service("a")],
         Edit((Change(service("a"), "removed", "mesh/x.yaml"),), {"mesh/x.yaml": B})),
        ({"mesh/x.yaml": TWO}, "", [service("b")],
         Edit((Change(service("b"), "removed", "mesh/x.yaml"),), {"mesh/x.yaml": f"# the file\n{A}"})),
        ({"mesh/x.yaml": A}, "", [service("a")],
         Edit((Change(service("a"), "removed", "mesh/x.yaml"),), {"mesh/x.yaml": None})),
        ({"mesh/x.yaml": TWO}, "", [service("a"), service("b")],
         Edit((Change(service("a"), "removed", "mesh/x.yaml"), Change(service("b"), "removed", "mesh/x.yaml")),
              {"mesh/x.yaml": None})),
        ({"mesh/service-a.yaml": B}, changed("a"), [],
         Edit((Change(service("a"), "created", "mesh/service-a-2.yaml"),), {"mesh/service-a-2.yaml": changed("a")})),
        ({}, changed("a").replace("name: a", "name: a, namespace: shop"), [],
         Edit((Change(service("a", "shop"), "created", "mesh/service-shop-a.yaml"),),
              {"mesh/service-shop-a.yaml": changed("a").replace("name: a", "name: a, namespace: shop")})),
        ({"mesh/x.yaml": TWO, "workloads.yaml": "a: 1\n"}, changed("a"), [service("b")],
         Edit((Change(service("a"), "changed", "mesh/x.yaml"), Change(service("b"), "removed", "mesh/x.yaml")),
              {"mesh/x.yaml": f"# the file\n{changed('a')}"})),
        ({}, changed("a") + "---\n" + changed("a", 3), [],
         Edit((Change(service("a"), "created", "mesh/service-a.yaml"),
               Change(service("a"), "changed", "mesh/service-a.yaml")),
              {"mesh/service-a.yaml": changed("a", 3)})),
    ],
    ids=["new", "first of two", "second keeps its comments", "or brings its own", "nothing to do", "out first",
         "out second", "the only one", "both", "a file of that name", "another namespace", "in and out", "twice"],
)  # fmt: skip
def test_a_change(texts: Mapping[str, str], apply: str, remove: list[ResourceId], expected: Edit) -> None:
    assert edit(texts, "default", apply, remove) == expected


def test_all_texts_after_a_change() -> None:
    made = edit({"mesh/x.yaml": A, "mesh/y.yaml": B}, "default", changed("c"), [service("a")])

    assert made.applied({"mesh/x.yaml": A, "mesh/y.yaml": B, "policyd.yaml": ""}) == {
        "mesh/y.yaml": B, "mesh/service-c.yaml": changed("c"), "policyd.yaml": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("apply", "remove", "message"),
    [
        ("a: [", [], "-:1: no valid YAML: did not find expected node content"),
        ("just text", [], "-:1: a document is no resource of a kind that a mesh folder may hold; give it"),
        (f"{A}---\nkind: Pod\nmetadata: {{name: a}}\n", [], "-:6: a document is no resource of a kind that a mesh "),
        ("kind: Service\nmetadata: {name: 7}\n", [], "-:1: a document is no resource of a kind that a mesh folder "),
        ("", [service("bb")], "there is no Service default/bb; did you mean `default/b`?"),
        ("x" * (3 << 20) + "x", [], "-: 3,145,729 bytes, at most 3,145,728 are allowed; split the file"),
    ],
)
def test_what_is_no_change_is_refused(apply: str, remove: list[ResourceId], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        edit({"mesh/x.yaml": TWO}, "default", apply, remove)

    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("VirtualService", "VirtualService"), ("virtualservices", "VirtualService"), ("vs", "VirtualService"),
        ("SE", "ServiceEntry"), ("serviceentries", "ServiceEntry"), ("Gateways", "Gateway"), ("svc", "Service"),
    ],
)  # fmt: skip
def test_a_kind_by_any_of_its_names(text: str, kind: str) -> None:
    assert kind_of(text) == kind
    assert named(text, "shop/a", "default") == ResourceId(kind, "shop", "a")
    assert named(text, "a", "default") == ResourceId(kind, "default", "a")


def test_a_kind_that_is_none() -> None:
    with pytest.raises(InvalidInput) as refused:
        kind_of("VirtualSrevice")

    assert str(refused.value) == "`VirtualSrevice` is no kind of a mesh folder; did you mean `VirtualService`?"


COMMENTS = st.sampled_from(["", "# x\n", "\n", "# ---\n", "  # y\n\n"])
NAMES = st.lists(st.sampled_from("abcdefg"), unique=True, min_size=1, max_size=5)


@given(NAMES, st.lists(COMMENTS, min_size=5, max_size=5), st.data())
def test_other_documents_stay_byte_for_byte(names: list[str], comments: list[str], data: st.DataObject) -> None:
    """Whatever stands in a file, a change touches the one document that it is about."""
    parts = [f"{comment}{changed(name, 1)}{comment}" for name, comment in zip(names, comments, strict=False)]
    text = "---\n".join(parts)
    at = data.draw(st.integers(0, len(names) - 1))

    put = edit({"mesh/x.yaml": text}, "default", changed(names[at])).texts["mesh/x.yaml"]
    taken = edit({"mesh/x.yaml": text}, "default", "", [service(names[at])]).texts["mesh/x.yaml"]

    others = [part for place, part in enumerate(parts) if place != at]
    assert put is not None
    assert [one.text for place, one in enumerate(pieces(put, "x")) if place != at] == others
    assert taken == ("---\n".join(others) if others else None)
