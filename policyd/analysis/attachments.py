"""Resources of the Gateway API that are not, or not wholly, in force: each condition that is not as it should be."""

from __future__ import annotations

from policyd.analysis.model import Analysed, Findings, at


def find(analysed: Analysed) -> Findings:
    """What is told of each, at its name."""
    for declared in analysed.declaration.resources:
        status = analysed.declaration.statuses.get((declared.resource.kind_key, declared.resource.id))
        if status is None or not declared.stands:
            continue
        for one in dict.fromkeys(status.every()):
            if not one.is_good:
                said = f"{one.type} is {one.status} ({one.reason}): {one.message}"
                message, _, remedy = said.partition("; ")
                yield at(declared, "PM0203", message, ("metadata", "name"), remedy)
