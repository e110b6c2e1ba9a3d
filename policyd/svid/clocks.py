"""Where a time refuses somebody: both times, how far apart they are, and what that says of the clocks.

Law: pure, and no clock is called wrong that may be right. What begins later than now was made by a clock that is ahead
of the one here; what is over may simply be old, unless it was made just now.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from policyd.errors import IdentityError

_COMPARE: Final = "compare the clocks of the two machines"
_SET: Final = f"{_COMPARE}, and set the one that is wrong"
_UNITS: Final = ((172_800, 86_400, "days"), (7_200, 3_600, "h"), (120, 60, "min"))


def check_times(
    what: str, begins: datetime | None, ends: datetime | None, now: datetime, *, by: str = "", old: str = ""
) -> None:
    """Raise IdentityError where `what` is not good at `now`: before it `begins`, or once it `ends`.

    `by` is whose clock made it just now, where that is known; `old` is what to do about what is over.
    """
    if begins is not None and now < begins:
        whose = f"{by}'s" if by else "that of who made it"
        raise IdentityError(
            f"{what} begins at {begins:%FT%TZ}, and here it is {now:%FT%TZ}: "
            f"the clock here is {apart(begins - now)} behind {whose}, or more",
            remedy=_SET,
        )
    if ends is not None and now >= ends:
        said = f"{what} ended at {ends:%FT%TZ}, and here it is {now:%FT%TZ}"
        later = apart(now - ends)
        if by:
            raise IdentityError(f"{said}: the clock here is {later} ahead of {by}'s, or more", remedy=_SET)
        anew = old or "obtain a new one"
        raise IdentityError(f"{said}, {later} later", remedy=f"{anew}; if it is new, {_COMPARE}")


def apart(difference: timedelta) -> str:
    """How long that is, for people: `35 s`, `12 min`, `5 h`, `3 days`."""
    seconds = abs(difference.total_seconds())
    for least, unit, name in _UNITS:
        if seconds >= least:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds)} s"
