"""What the documentation's own tests make of a page."""

from __future__ import annotations

import pytest

from tests.docs.page import Run, Write, anchors, links, matches, steps, told

PAGE = """# A page
<!-- ports 8080 9000 -->

Write `app.py`:

```python
print(1)
```

Run it:

```sh
python app.py
```

It says:

```text
1
```

<!-- exit 2, soon -->
```sh
false
```

<!-- output of `true` -->
```text
…
```
"""


def test_a_page_is_read_as_steps() -> None:
    assert steps(PAGE) == [
        Write(6, "app.py", "print(1)\n"),
        Run(12, "python app.py\n", 0, "1\n"),
        Run(23, "false\n", 2, None, soon=True),
        Run(28, "true", 0, "…\n"),
    ]


def test_a_block_that_nothing_is_done_with_is_refused() -> None:
    with pytest.raises(ValueError, match="line 1: nothing is done with this block"):
        steps("```yaml\na: 1\n```\n")


def test_what_a_page_tells_of_itself_is_found() -> None:
    assert (told(PAGE, "ports"), told(PAGE, "needs")) == (["8080", "9000"], [])


def test_links_and_anchors_leave_blocks_out() -> None:
    page = "# One `two` three\n## One `two` three\n[a](b.md#c)\n```sh\n# not\n[x](y)\n```\n"

    assert links(page) == ["b.md#c"]
    assert anchors(page) == {"one-two-three", "one-two-three-1"}


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a  b\n", "  a b\n\n", True),
        ("a … c\n", "a b c\n", True),
        ("a … c\n", "a b d\n", False),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\nd\n", "a\nd\n", True),
        ("a\n…\nd\n", "a\nb\n", False),
        ("a\n", "a\nb\n", False),
        ("(a)*\n", "(a)*\n", True),
    ],
)
def test_output_is_compared_with_gaps(expected: str, printed: str, same: bool) -> None:
    assert matches(expected, printed) is same
