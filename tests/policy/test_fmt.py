"""Policy files formatted: Cedar's form, and nothing lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.errors import InvalidInput
from policyd.policy.fmt import difference, formatted


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("", ""),
        ("\n\n// nothing yet\n\n\n// but soon\n", "// nothing yet\n\n// but soon\n"),
        ("permit(principal,action,resource);", "permit (principal, action, resource);\n"),
        (
            '// one\n\n// of a\n@id("a")permit(principal,action,resource);// behind\n// two\n\n\n@id("b")\n'
            "forbid(principal,action,resource); // last",
            '// one\n\n// of a\n@id("a")\npermit (principal, action, resource); // behind\n\n// two\n\n@id("b")\n'
            "forbid (principal, action, resource); // last\n",
        ),
        (
            "permit(principal, // who\n action,resource) when { 1 == 1 // why\n && true };\n",
            "permit (principal, // who\n  action, resource)\nwhen\n{\n  1 == 1 // why\n   &&\n  true\n};\n",
        ),
        (
            "permit(principal,action,resource);\r\n// it's \"quoted\rpermit(principal,action,resource);\r\n",
            "permit (principal, action, resource);\n\n// it's \"quoted\npermit (principal, action, resource);\n",
        ),
    ],
)
def test_a_file_is_formatted(text: str, made: str) -> None:
    assert formatted(text, "p.cedar") == made
    assert formatted(made, "p.cedar") == made
    assert (difference(text, made, "p.cedar") == "") == (text == made)


PERMIT = "permit(principal,action,resource) when {{ {} }};"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("permit(principal,action,resource);\npermit(x", "p.cedar:2: unexpected"),
        (PERMIT.format("(" * 5000 + "true" + ")" * 5000), "p.cedar:1: brackets are nested over 100 deep"),
        (PERMIT.format("true" + " && true" * 600), "p.cedar:1: a policy has over 500 operators"),
        (PERMIT.format("!" * 501 + "true"), "p.cedar:1: a policy has over 500 operators"),
        (PERMIT.format('"a\r\n" == "x"'), "p.cedar:1: the input `\r` is not a valid escape"),
        ("// x" * 300_000, "p.cedar: a policy file has at most 1048576 bytes"),
        (PERMIT.format(f'"{"x" * 70_000}" == "a"'), "p.cedar:1: a policy has over 65536 characters"),
    ],
)
def test_what_cannot_be_formatted_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        formatted(text, "p.cedar")
    assert str(caught.value.problems[0]).startswith(problem)


words = st.sampled_from(
    ["// c\n", "// c\r", "\r\n", "\n", " ", "&&", "||", "(true)", "[1]", '"a//b"', "context.a", "==", "1", "!"]
)


@given(st.lists(words, max_size=12).map("".join), st.lists(words, max_size=6).map("".join))
def test_nothing_is_lost_whatever_it_looks_like(condition: str, between: str) -> None:
    text = f"{between}permit(principal,action,resource) when {{ {condition} }};{between}"
    try:
        made = formatted(text, "p.cedar")
    except InvalidInput:
        return
    assert made.count("// c\n") == text.count("// c")
    assert formatted(made, "p.cedar") == made
