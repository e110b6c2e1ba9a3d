"""Headers as people write them, `name: value` or `name=value`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from policyd.errors import UsageError

_HEADER = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*[:=]\s*(.*?)\s*")  # a field name (RFC 9110, 5.1)


def headers(texts: Sequence[str]) -> dict[str, str]:
    """Return headers of `name: value` or `name=value` texts, names in lower case, repeated ones joined.

    Raises UsageError.
    """
    found: dict[str, str] = {}
    for text in texts:
        match = _HEADER.fullmatch(text)
        if match is None:
            raise UsageError(f"`{text[:80]}` is no header", remedy="write it as in `end-user: jason`")
        name, value = match[1].lower(), match[2]
        found[name] = f"{found[name]},{value}" if name in found else value
    return found
