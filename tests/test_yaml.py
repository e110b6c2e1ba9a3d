"""Strict YAML: plain values with their lines, and everything ambiguous, hostile or too large refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.errors import InvalidInput, Problem
from policyd.yaml import MAX_BYTES, MAX_DEPTH, MAX_PROBLEMS, MAX_VALUES, load, load_one

TEXTS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=20)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXTS.filter(lambda key: key != "<<"), inner, max_size=4)
    ),
    max_leaves=20,
)


def refused(text: str) -> list[str]:
    """Give the problems of `text`, each as it is shown."""
    with pytest.raises(InvalidInput) as error:
        load(text, "a.yaml")
    return [str(problem) for problem in error.value.problems]


@given(VALUES)
def test_json_is_read_as_json(value: Any) -> None:
    assert load(json.dumps(value, ensure_ascii=False), "a.yaml")[0].value == value


@given(st.text(max_size=80))
def test_any_text_gives_documents_or_problems_in_the_file(text: str) -> None:
    try:
        documents = load(text, "a.yaml")
    except InvalidInput as error:
        files = {problem.file for problem in error.problems}
    else:
        files = {document.file for document in documents}
    assert files <= {"a.yaml"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("42", 42),
        ("-1", -1),
        ("1.5", 1.5),
        *[(word, word) for word in ("on", "off", "yes", "no", "y", "n", "True", "FALSE", "Null")],
        *[
            (word, word)
            for word in ("0o17", "017", "0x1f", "1_000", "1:30", "1e3", ".5", "2024-01-01", ".inf", "9" * 19)
        ],
        ('"true"', "true"),
        ("'1'", "1"),
    ],
)
def test_only_the_plainest_words_and_numbers_are_more_than_text(text: str, value: object) -> None:
    (document,) = load(f"a: {text}", "a.yaml")
    assert document.value == {"a": value}
    assert type(document.value["a"]) is type(value)


def test_keys_are_always_text() -> None:
    assert load("{on: no, 80: web, true: x, null: y}", "a.yaml")[0].value == {
        "on": "no",
        "80": "web",
        "true": "x",
        "null": "y",
    }


def test_a_file_has_several_documents_and_empty_ones() -> None:
    assert [document.value for document in load("a: 1\n---\n---\n- b\n", "a.yaml")] == [{"a": 1}, None, ["b"]]


def test_an_alias_stands_for_its_anchor() -> None:
    (document,) = load("a: &x {b: [1]}\nc: *x\n", "a.yaml")
    assert document.value == {"a": {"b": [1]}, "c": {"b": [1]}}
    assert document.find(("c",)).line == 2


def test_every_value_has_its_line() -> None:
    (document,) = load("a:\n  - b: 1\n    c:\n      d: 2\n  - e\n", "a.yaml")
    paths: list[tuple[str | int, ...]] = [("a",), ("a", 0), ("a", 0, "b"), ("a", 0, "c", "d"), ("a", 1), ("a", 0, "x")]
    assert [document.find(path).line for path in paths] == [1, 2, 2, 4, 5, 2]
    assert document.problem("field", "is odd", ("a", 0, "c")) == Problem("field", "is odd", "a.yaml", 3, 5)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1\nb: [", ["a.yaml:2: no valid YAML: did not find expected node content"]),
        ("a:\n\tb: 1\n", ["a.yaml:2: no valid YAML: found character that cannot start any token"]),
        (
            "a: 1\nb: 2\na: 3\nb: 4\n",
            [
                "a.yaml:3: the key `a` is there twice, first in line 1; remove or rename one",
                "a.yaml:4: the key `b` is there twice, first in line 2; remove or rename one",
            ],
        ),
        ("{a: 1, 'a': 2}", ["a.yaml:1: the key `a` is there twice, first in line 1; remove or rename one"]),
        ("a: &x 1\n<<: {b: 2}\n", ["a.yaml:2: merge keys (`<<`) are not supported; write the fields out"]),
        (
            "a: !!python/object:os.system x\n",
            ["a.yaml:1: the tag `tag:yaml.org,2002:python/object:os.system` is not supported; remove it"],
        ),
        ("a: !!int x\n", ["a.yaml:1: the tag `tag:yaml.org,2002:int` is not supported; remove it"]),
        ("[a]: b\n", ["a.yaml:1: a key must be text"]),
        ("&x a: 1\n*x : 2\n", ["a.yaml:2: an alias as a key is not supported; write the key out"]),
        ("a: *x\n", ["a.yaml:1: the alias `*x` refers to nothing"]),
        ("a: &x [*x]\n", ["a.yaml:1: the alias `*x` refers to itself"]),
        ("a: &x 1\n---\nb: *x\n", ["a.yaml:3: the alias `*x` refers to nothing"]),
        ("a: b\0c\n", ["a.yaml:1: the control character U+0000 is not allowed; remove it"]),
        ("a:\n  - \x1b[31m\n", ["a.yaml:2: the control character U+001B is not allowed; remove it"]),
        ('a: "b\\0"\n', ["a.yaml:1: the control character U+0000 is not allowed; remove it"]),
        ('"a\\x07": b\n', ["a.yaml:1: the control character U+0007 is not allowed; remove it"]),
        ("a: \ud800\n", ["a.yaml:1: the control character U+D800 is not allowed; remove it"]),
    ],
)
def test_what_is_ambiguous_or_broken_is_refused(text: str, problems: list[str]) -> None:
    assert refused(text) == problems


def test_an_alias_bomb_is_refused_before_it_is_expanded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 40)]
    assert refused("\n".join(lines)) == [
        f"a.yaml:6: more than {MAX_VALUES:,} values once its aliases are expanded; write less, or fewer aliases"
    ]


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "? " * 100_000])
def test_deep_nesting_is_refused_without_recursion(text: str) -> None:
    (problem,) = refused(text)
    assert (
        f"nested more than {MAX_DEPTH} levels deep; nothing here needs that" in problem
        or "a key must be text" in problem
    )


def test_aliases_cannot_nest_deeper_than_the_bound_either() -> None:
    half = "[" * (MAX_DEPTH // 2) + "]" * (MAX_DEPTH // 2)
    text = f"a: &x {half}\nb: {half.replace('[]', '[*x]')}\n"
    assert refused(text) == [f"a.yaml:2: nested more than {MAX_DEPTH} levels deep; nothing here needs that"]


def test_ten_megabytes_are_refused() -> None:
    text = "a: " + "x" * 10_000_000
    assert refused(text) == [f"a.yaml: 10,000,003 bytes, at most {MAX_BYTES:,} are allowed; split the file"]


def test_a_file_of_one_document_has_no_second() -> None:
    assert load_one("", "a.yaml").value == {}
    assert load_one("---\n---\na: 1\n", "a.yaml").value == {"a": 1}
    with pytest.raises(InvalidInput) as error:
        load_one("a: 1\n---\nb: 2\n", "a.yaml")
    assert str(error.value) == "a.yaml:3: more than one document; keep one document in it"


def test_one_mistake_repeated_is_not_reported_for_ever() -> None:
    assert len(refused("a: 1\n" * 1000)) == MAX_PROBLEMS
