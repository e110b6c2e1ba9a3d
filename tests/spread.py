"""How tests are spread over processes that run at the same time.

Law: the tests of a file share what they start, so that they stay together; those of which each starts its own go alone.
The files of the most tests begin, and the single ones fill what is left.
"""

from __future__ import annotations

from typing import Final

from xdist.scheduler import LoadScopeScheduling

SINGLE: Final = frozenset({"tests/docs/test_tasks.py"})


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives out whole files, and single tests of a few of them."""

    def _split_scope(self, nodeid: str) -> str:
        """What has to stay with it."""
        file, _, _ = nodeid.partition("::")
        return nodeid if file in SINGLE else file
