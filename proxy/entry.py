"""How an agent becomes somebody: by the identity that its state folder keeps, else by a join token.

Law: a kept identity that still holds is preferred, since a token works only once; a token of another mesh or for
another agent than the kept one wins over it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from policyd.errors import IdentityError, StateError, TokenError, UsageError
from policyd.join_token import JoinToken
from policyd.spiffe import SpiffeId
from proxy.backoff import backoff
from proxy.control import Unreachable
from proxy.events import stamp
from proxy.join import Joined, come_back, join
from proxy.outside import Outside
from proxy.state import StateFolder

FIRST_WAIT, MOST_WAIT = 0.1, 5.0
PATIENCE = 30.0  # seconds in which policyd may still be starting


@dataclass(frozen=True, slots=True)
class Entry:
    """What the agent was started with; `server` overrides the address that policyd tells or that is kept."""

    token: JoinToken | None = None
    state: StateFolder | None = None
    server: str | None = None
    name: str | None = None


async def enter(entry: Entry, outside: Outside) -> Joined:
    """Return who this agent is, and say it; raises PolicydError when it is nobody."""
    _check_name(entry)
    kept = _kept(entry, outside)
    if kept is not None and _still_meant(kept, entry):
        kept = replace(kept, server=entry.server or kept.server)
        if outside.clock() < kept.svid.not_after:
            outside.say("agent.resumed", spiffe_id=str(kept.svid.id), expires=stamp(kept.svid.not_after))
            return kept
        if (back := await _come_back(kept, entry, outside)) is not None:
            return back
    if entry.token is None:
        raise UsageError(
            "the agent has no identity and no join token",
            remedy="make a token with `policyd ca token create`, and give it with --join",
        )
    token = entry.token
    joined = await _persist(lambda: join(token, outside.clock(), entry.server), outside)
    if entry.state is not None:
        entry.state.save(joined)
    outside.say(
        "agent.joined", spiffe_id=str(joined.svid.id), expires=stamp(joined.svid.not_after), server=joined.server
    )
    return joined


def _check_name(entry: Entry) -> None:
    if entry.token is not None and entry.name not in (None, entry.token.agent):
        raise UsageError(f"the join token is for the agent `{entry.token.agent}`, not `{entry.name}`")


def _kept(entry: Entry, outside: Outside) -> Joined | None:
    if entry.state is None:
        return None
    try:
        return entry.state.load(outside.clock())
    except (IdentityError, StateError) as error:
        if entry.token is None:
            raise
        outside.say("agent.state_unusable", code=error.code, reason=str(error))
        return None


def _still_meant(kept: Joined, entry: Entry) -> bool:
    token = entry.token
    if token is None:
        return entry.name in (None, kept.svid.id.agent_name)
    roots = {hashlib.sha256(root).hexdigest() for root in kept.bundle.roots}
    return kept.svid.id == SpiffeId.agent(token.trust_domain, token.agent) and token.root_sha256 in roots


async def _come_back(kept: Joined, entry: Entry, outside: Outside) -> Joined | None:
    """Who this agent was before its SVID ended; None where policyd does not take it back, and there is a token."""
    try:
        back = await _persist(lambda: come_back(kept, outside.clock()), outside)
    except TokenError as error:
        if entry.token is None:
            raise
        outside.say("agent.state_unusable", code=error.code, reason=str(error))
        return None
    if entry.state is not None:
        entry.state.save(back)
    outside.say("agent.came_back", spiffe_id=str(back.svid.id), expires=stamp(back.svid.not_after))
    return back


async def _persist(attempt: Callable[[], Awaitable[Joined]], outside: Outside) -> Joined:
    """What `attempt` gives, made again for a while as long as policyd cannot be reached."""
    deadline, failures = outside.monotonic() + PATIENCE, 0
    while True:
        try:
            return await attempt()
        except Unreachable as error:
            failures += 1
            wait = backoff(failures, outside.spread(), first=FIRST_WAIT, most=MOST_WAIT)
            if outside.monotonic() + wait > deadline:
                raise
            outside.say("agent.waiting", reason=str(error), again_in=round(wait, 2))
            await outside.sleep(wait)
