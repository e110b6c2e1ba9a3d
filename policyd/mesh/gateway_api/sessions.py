"""Sessions of clients that stay with the instance that answered first (`sessionPersistence` of a rule's).

Law: the client keeps what tells of its instance, and no proxy anything; what would have to be remembered is refused.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from policyd.mesh.istio.common import HeaderName
from policyd.strict import Duration, Model

OWN_NAME: Final = "policyd-session"


class Session(Model):
    """How clients tell of their instance: by a header, or by a cookie for paths below `path`.

    It lasts `ttl` seconds (None: as long as the browser runs).
    """

    name: str
    by: Literal["Cookie", "Header"] = "Cookie"
    ttl: float | None = None
    path: str = "/"


class CookieConfig(Model):
    """How long a cookie lasts: as long as the browser runs, or `absoluteTimeout`."""

    lifetime_type: Literal["Session", "Permanent"] = "Session"


class SessionPersistence(Model):
    """A client's requests go to one instance, by a cookie or a header that the answer to the first one sets."""

    session_name: Annotated[HeaderName, Field(min_length=1, max_length=128)] | None = None
    absolute_timeout: Annotated[Duration, Field(ge=1)] | None = None  # of less a browser is told nothing
    type: Literal["Cookie", "Header"] = "Cookie"
    cookie_config: CookieConfig | None = None

    @model_validator(mode="after")
    def _fits(self) -> SessionPersistence:
        permanent = self.cookie_config is not None and self.cookie_config.lifetime_type == "Permanent"
        if self.type == "Header" and (self.cookie_config is not None or self.absolute_timeout is not None):
            field = "cookieConfig" if self.cookie_config is not None else "absoluteTimeout"
            raise ValueError(f"`{field}` is for cookies, which browsers let expire; remove it, or write `type: Cookie`")
        if permanent and self.absolute_timeout is None:
            raise ValueError("a `Permanent` cookie needs `absoluteTimeout`; add it")
        if self.absolute_timeout is not None and not permanent:
            raise ValueError(
                "only a cookie that is `Permanent` ends by itself; add `cookieConfig: {lifetimeType: Permanent}`"
            )
        return self

    def session(self, owner: str, path: str) -> Session:
        """The same for the rule that `owner` names, whose requests are below `path`."""
        name = self.session_name or f"{OWN_NAME}-{hashlib.sha256(owner.encode()).hexdigest()[:8]}"
        return Session(name=name, by=self.type, ttl=self.absolute_timeout, path=path or "/")


def check_backends(persists: SessionPersistence | None, backends: int) -> None:
    """Raise ValueError where a session would have to remember more than an instance."""
    if persists is not None and backends > 1:
        raise ValueError(
            "`sessionPersistence` holds to an instance of one backend, and shares are dealt anew for each request; "
            "keep one of `backendRefs`"
        )
