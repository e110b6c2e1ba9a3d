"""Policies in colour: nothing is lost, nothing is added, and what failed is marked where it stands."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from policyd.console.cedar_text import Mark, lines_of, of_miss, of_reason
from policyd.policy.outline import Span


def text_of(lines: list) -> str:
    return "\n".join("".join(piece.text for piece in line.pieces) for line in lines)


@given(
    st.text(max_size=200) | st.text(alphabet='permit(){}"\\/ \n.:;=&|@az0', max_size=300),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=4),
)
def test_the_pieces_are_the_text(text: str, spans: list[tuple[int, int]]) -> None:
    marks = [Mark(Span(*sorted(span)), "failed", "x") for span in spans]
    lines = lines_of(text, 7, marks)

    assert text_of(lines) == text
    assert [line.number for line in lines] == list(range(7, 7 + text.count("\n") + 1))


def test_words_have_the_colour_of_what_they_are() -> None:
    [line] = lines_of('@id("a") forbid(principal is User) when { context.request.path like "/x" }; // why')

    kinds = {piece.text: piece.kind for piece in line.pieces if piece.kind}
    assert kinds == {
        "@": "annotation", "id": "annotation", '"a"': "string", "forbid": "effect forbid", "principal": "variable",
        "is": "keyword", "User": "type", "when": "keyword", "context": "variable", "request": "attribute",
        "path": "attribute", "like": "keyword", '"/x"': "string", " // why": "comment",
    }  # fmt: skip


def test_a_clause_that_failed_is_marked_and_one_that_held_is_not(root: Path, tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from policyd.offline.loaded import load_folder
    from policyd.policy.authorize import authorize
    from tests.cli.recorded import bookinfo

    folder = bookinfo(root, tmp_path / "bookinfo")
    (folder / "policies" / "details.cedar").write_text(
        '@id("some")\npermit (principal, action in Action::"http", resource == Service::"details.default")\n'
        'when { context.request.path like "/details/*" && context.request.segments == 3 }\n'
        'unless { context.request.host == "details" };\n'
    )
    ruling = load_folder(folder, cases=False).live.ruling

    def marked(request: str, tone: str) -> list[str]:
        told = authorize(request, ruling, datetime(2026, 11, 20, tzinfo=UTC)).explanation
        near = [line for miss in told.near for line in of_miss(miss)]
        met = [line for one in told.reasons for line in of_reason(one.policy, one.met)]
        found: dict[str, str] = {}
        for line in (*near, *met):
            for piece in line.pieces:
                if piece.tone == tone:
                    found[piece.words] = found.get(piece.words, "") + piece.text
        return list(found.values())

    assert marked("reviews-v1 GET http://details/details/0", "failed") == [
        "context.request.segments == 3", 'context.request.host == "details"'
    ]  # fmt: skip
    assert marked("reviews-v1 GET http://details.default/details/0/x", "met")[:2] == [
        'context.request.path like "/details/*"', "context.request.segments == 3"
    ]  # fmt: skip
