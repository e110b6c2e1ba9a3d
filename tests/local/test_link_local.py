"""Who calls from a link-local address is decided about, by policyd as by the compiled filter.

Of policies that read addresses policyd decides wherever one may be of IPv6, so only its answer counts there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.spaces import Space

pytestmark = pytest.mark.e2e

PERMIT: Final = '@id("p") permit (principal, action in Action::"http", resource)'
FORBID: Final = PERMIT + '; @id("f") forbid (principal, action, resource)'
ALLOWED, DENIED, FORBIDDEN = [200, "p"], [403, ""], [403, "f"]
ANSWERS: Final = {
    f"{PERMIT};": ALLOWED,
    f'{PERMIT} when {{ context.source.ip.isInRange(ip("fe80::/10")) }};': ALLOWED,
    f'{PERMIT} when {{ context.source.ip == ip("fe80::1") }};': ALLOWED,
    f'{PERMIT} when {{ context.source.ip.isInRange(ip("10.0.0.0/8")) }};': DENIED,
    f'{FORBID} when {{ context.source.ip.isInRange(ip("fe80::/64")) }};': FORBIDDEN,
}


@pytest.mark.needs("root", "unshare", "nsenter", "ip")
def test_a_caller_at_a_link_local_address_is_decided_about(root: Path) -> None:
    space = Space()
    try:
        space.has("link", "add", "here", "type", "veth", "peer", "name", "there")
        space.has("-6", "addr", "add", "fe80::1/64", "dev", "here", "nodad")
        for end in ("here", "there"):
            space.has("link", "set", end, "up")
        said = space.run(sys.executable, "-m", "tests.local.link_local", str(root), "fe80::1%here", *ANSWERS)
    finally:
        space.close()

    answers = dict(zip(ANSWERS, json.loads(said), strict=True))
    assert {one: central for one, (central, _) in answers.items()} == ANSWERS
    assert answers[f"{PERMIT};"] == [ALLOWED, ALLOWED]
