"""The process `policyd`: Ctrl-C ends it without a word from the first moment on, also while it is still loaded."""

from __future__ import annotations

import sys
from typing import NoReturn

INTERRUPTED = 130  # as Exit.INTERRUPTED, which may not be there yet


def main() -> NoReturn:
    """Load the command line, and run that of this process."""
    try:
        from policyd.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()
