"""Where a workload is: region, zone and subzone, as clouds and Istio name them.

Law: a locality says what is near; it is never a reason to permit anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
REGION_LABEL: Final = "topology.kubernetes.io/region"
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
SUBZONE_LABEL: Final = "topology.istio.io/subzone"


@dataclass(frozen=True, slots=True, order=True)
class Locality:
    """A place; `zone` and `subzone` are "" where they are not told."""

    region: str
    zone: str = ""
    subzone: str = ""

    def __str__(self) -> str:
        """`region/zone/subzone`, as it is declared."""
        return "/".join(part for part in (self.region, self.zone, self.subzone) if part)

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels by which a failover priority may name it."""
        named = ((REGION_LABEL, self.region), (ZONE_LABEL, self.zone), (SUBZONE_LABEL, self.subzone))
        return {label: value for label, value in named if value}


def parse_locality(text: str) -> Locality:
    """Read `region[/zone[/subzone]]`; it was checked by `check_locality`."""
    return Locality(*text.split("/"))


def check_locality(text: str) -> str:
    """Return `region`, `region/zone` or `region/zone/subzone`."""
    parts = text.split("/")
    if len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
        raise ValueError(f"`{text[:80]}` is no locality; write `region/zone/subzone`, as in `eu/eu-1/rack2`")
    return text


def check_locality_pattern(text: str) -> str:
    """Return a locality whose last part may be `*`, or `*` for every one."""
    if text == "*":
        return text
    check_locality(text.removesuffix("/*"))
    if text.count("/") > 2:
        raise ValueError(f"`{text[:80]}` has more than three parts; write `region/zone/subzone` or `region/*`")
    return text


def check_region(text: str) -> str:
    """Return a region's name."""
    if not _PART.fullmatch(text):
        raise ValueError(f"`{text[:80]}` is no region; name one, without zones")
    return text


def matches(pattern: str, place: Locality) -> bool:
    """Tell whether a place is one of a pattern: each part that the pattern has is equal, `*` is any."""
    wanted = pattern.split("/")
    given = (place.region, place.zone, place.subzone)
    return all(part in ("*", given[at]) for at, part in enumerate(wanted))
