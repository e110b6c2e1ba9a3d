"""A page of the documentation as steps that a test can take.

```sh             commands, run in the page's one bash
```text           what they print; `…` stands for any text, alone on a line for any number of lines
Write `path`:     before a block: it becomes that file
<!-- exit 2 -->   before commands: their exit code
<!-- soon -->     before commands: repeat them for a moment until they print this
<!-- output of `command` -->   before a ```text block: of a command that the page does not show
<!-- ports 8080 -->            anywhere: numbers that stand for ports that are free where the test runs
<!-- needs openssl -->         anywhere: programs that the page uses
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"```(\w*)")
_WRITE = re.compile(r"(?:.*\b)?[Ww]rite `([^`]+)`[^`]*:")
_SAID = re.compile(r"<!-- (.*) -->")
_OUTPUT_OF = re.compile(r"output of `(.+)`")
_EXIT = re.compile(r"exit (\d+)")
_LINK = re.compile(r"(?<!!)\[[^]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"#+ (.+)")


@dataclass(frozen=True, slots=True)
class Write:
    """A file that the reader writes."""

    line: int
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """Commands that the reader types; `output` is None where the page shows none."""

    line: int
    script: str
    exit: int = 0
    output: str | None = None
    soon: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block, its language and the last line of text before it."""

    line: int
    language: str
    text: str
    before: str


def steps(page: str) -> list[Write | Run]:
    """Give a page's steps in their order; raises ValueError for a block that is neither run, written nor output."""
    found: list[Write | Run] = []
    for block in blocks(page):
        said = match[1] if (match := _SAID.fullmatch(block.before)) else ""
        if written := _WRITE.fullmatch(block.before):
            found.append(Write(block.line, written[1], block.text))
        elif block.language == "sh":
            code = int(match[1]) if (match := _EXIT.search(said)) else 0
            found.append(Run(block.line, block.text, code, None, "soon" in said))
        elif block.language == "text" and (command := _OUTPUT_OF.fullmatch(said)):
            found.append(Run(block.line, command[1], 0, block.text))
        elif block.language == "text" and found and isinstance(last := found[-1], Run) and last.output is None:
            found[-1] = Run(last.line, last.script, last.exit, block.text, last.soon)
        elif block.language != "text":
            raise ValueError(f"line {block.line}: nothing is done with this block")
    return found


def blocks(page: str) -> Iterator[Block]:
    """Give the fenced blocks of a page."""
    opened: tuple[int, str] | None = None
    before, inside = "", []
    for number, line in enumerate(page.splitlines(), 1):
        if opened and line == "```":
            yield Block(*opened, "".join(f"{one}\n" for one in inside), before)
            opened, before, inside = None, "", []
        elif opened:
            inside.append(line)
        elif fence := _FENCE.fullmatch(line):
            opened = number, fence[1]
        elif line.strip():
            before = line.strip()


def told(page: str, word: str) -> list[str]:
    """Give what a comment `<!-- word … -->` of a page lists."""
    return [one for said in _SAID.findall(page) if said.startswith(f"{word} ") for one in said.split()[1:]]


def links(page: str) -> list[str]:
    """Give the targets of a page's links."""
    prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    return _LINK.findall(prose)


def anchors(page: str) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in (match[1] for line in prose.splitlines() if (match := _HEADING.fullmatch(line))):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(next(name for name in (slug, *(f"{slug}-{n}" for n in range(1, 100))) if name not in found))
    return found


def matches(expected: str, printed: str) -> bool:
    """Tell whether a page's output is what was printed; white space counts once."""
    pattern = ""
    for line in _lines(expected):
        parts = (re.escape(part) for part in line.split("…"))
        pattern += r"(?:.*\n)*" if line == "…" else ".*".join(parts) + r"\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(printed))) is not None


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.strip().splitlines()]
