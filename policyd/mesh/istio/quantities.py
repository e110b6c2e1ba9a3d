"""Counts, shares and times, as policies of traffic give them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from policyd.mesh.matching import check_long_enough, check_whole_seconds
from policyd.strict import Duration

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
CountOrNone = Annotated[int, Field(ge=0, le=2**31 - 1)]
Percent = Annotated[int, Field(ge=0, le=100)]
Wait = Annotated[Duration, AfterValidator(check_long_enough)]  # at least a millisecond
Seconds = Annotated[Wait, AfterValidator(check_whole_seconds)]
