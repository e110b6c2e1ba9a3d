"""What is said to be supported is what the models read."""

from __future__ import annotations

from policyd.mesh.istio.kinds import ELSEWHERE, KINDS, LATER
from policyd.mesh.support import Support, support


def test_the_fields_of_a_message_stand_where_it_is_first() -> None:
    rows = list(support(["VirtualService"]))

    assert Support("VirtualService", "spec.http[].match[].uri", ("exact", "prefix", "regex"), supported=True) in rows
    assert [row.place for row in rows if row.fields == ("exact", "prefix", "regex")] == ["spec.http[].match[].uri"]


def test_a_kind_without_a_model_is_not_supported() -> None:
    assert list(support(["EnvoyFilter"])) == [
        Support("EnvoyFilter", "…", (), supported=False, why=ELSEWHERE["EnvoyFilter"])
    ]


def test_every_kind_is_told_of_and_what_comes_later_is_refused() -> None:
    rows = list(support())

    assert {row.kind for row in rows} == {*KINDS, *ELSEWHERE}
    assert {(row.kind, name) for row in rows if not row.supported for name in row.fields} == {
        (kind, name) for kind, refused in LATER.items() for name in refused.why
    }


def test_what_is_refused_for_a_reason_says_what_to_do_instead() -> None:
    why = "every proxy must reach the machine's `address` directly; take it out"
    assert list(support(["WorkloadEntry"]))[-1] == Support("WorkloadEntry", "…", ("network",), False, why)


def test_no_field_is_supported_and_refused_in_one_place() -> None:
    for kind in KINDS:
        specs = [row for row in support([kind]) if row.place == "spec"]
        refused = {name for row in support([kind]) if not row.supported for name in row.fields}
        assert refused.isdisjoint(name for row in specs for name in row.fields)
