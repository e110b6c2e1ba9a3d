"""`python -m bench [NAME]`: every benchmark, or one. Exits 1 where a bar does not hold."""

from __future__ import annotations

import importlib
import sys

from bench.table import report

BENCHMARKS = (
    "journal",
    "check",
    "engine",
    "query",
    "footprint",
    "push",
    "mesh",
    "proxy",
    "telemetry",
    "local",
    "capture",
    "draining",
    "ca",
    "deciders",
    "demo",
)


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all."""
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        print(f"no benchmark `{unknown.pop()}`; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 64
    kept = [report(name, importlib.import_module(f"bench.{name}").run()) for name in names or BENCHMARKS]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
