"""mesh.md: which kinds and fields a mesh folder may hold, as `policyd mesh support` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from docs.pages.tables import code, codes, table
from policyd.mesh.support import support

INTRODUCTION = """# What is supported of Istio's kinds

`policyd mesh support` prints this. Whatever is not listed is refused by name, with file and line; nothing is ignored.
[files.md](files.md) tells what each field takes. `…` stands for any place.
"""


def mesh() -> Iterator[str]:
    """A table a kind."""
    yield INTRODUCTION
    missing = []
    for kind, rows in groupby(support(), key=lambda row: row.kind):
        found = list(rows)
        if not any(row.supported for row in found):
            missing.append(kind)
            continue
        yield from (f"## {kind}", "")
        lines = ((code(row.place), "yes" if row.supported else "no", codes(row.fields), row.why) for row in found)
        yield from table(("place", "supported", "fields", "instead"), lines)
        yield ""
    yield f"Not supported at all: {codes(missing)}. AuthorizationPolicy becomes Cedar by `policyd policy import istio`."
