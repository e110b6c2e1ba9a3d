"""What a proxy holds, kept apart from what changed of it since: like a plain mapping in everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from policyd.xds.held import FEW, Held, changed

NAMES = some.sampled_from([f"c{number}" for number in range(2 * FEW)])
CHANGES = some.lists(some.tuples(some.lists(NAMES, max_size=4), some.dictionaries(NAMES, some.text("ab", min_size=1))))


@given(some.dictionaries(NAMES, some.just("1")), CHANGES)
def test_it_is_what_a_plain_mapping_would_be(
    first: dict[str, str], changes: list[tuple[list[str], dict[str, str]]]
) -> None:
    held, plain = changed(first, [], {}), dict(first)
    for removed, came in changes:
        before, was = held, dict(held)
        held = changed(held, removed, came)
        plain = {name: version for name, version in plain.items() if name not in removed} | came
        assert held == plain
        assert (len(held), set(held), held.keys()) == (len(plain), set(plain), plain.keys())
        assert [held.get(name) for name in ("c0", "c1", "none")] == [plain.get(name) for name in ("c0", "c1", "none")]
        assert [name in held for name in ("c0", "c1", "none")] == [name in plain for name in ("c0", "c1", "none")]
        assert dict(before) == was


def test_a_change_of_one_name_among_many_copies_none_of_the_others() -> None:
    many = {f"c{number}": "1" for number in range(1000)}
    held = changed(many, ["c1"], {"c2": "2"})
    assert isinstance(held, Held)
    assert held.base is many
    assert held == {name: "2" if name == "c2" else "1" for name in many if name != "c1"}


def test_many_changes_are_laid_together_with_the_rest() -> None:
    many = {f"c{number}": "1" for number in range(1000)}
    assert isinstance(changed(many, [], dict.fromkeys(list(many)[: FEW + 1], "2")), dict)
