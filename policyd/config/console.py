"""The console: where it listens, and who may open it.

Law: beyond loopback it needs a certificate, and a token or a login.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from policyd.config.addresses import LOOPBACK, Listen
from policyd.config.urls import LoginIssuer
from policyd.strict import Many, Model


class OidcSettings(Model):
    """With whom people log in to the console (OpenID Connect), and who the console is to them."""

    issuer: LoginIssuer
    client_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]
    client_secret_file: Annotated[str, Field(min_length=1)] | None = None


class ConsoleSettings(Model):
    """Where the console listens, and for who comes from elsewhere its certificate, the file of the token that opens it,
    and the names that it goes by. Files are relative to the mesh's folder. With `apply` policies that were edited in it
    can be enforced from it, by whom the operators' policies let.
    """

    listen: Listen = LOOPBACK
    apply: bool = False
    names: Many[Annotated[str, Field(pattern=r"^[A-Za-z0-9.\[\]:-]{1,253}$")]] = ()
    token_file: Annotated[str, Field(min_length=1)] | None = None
    certificate_file: Annotated[str, Field(min_length=1)] | None = None
    key_file: Annotated[str, Field(min_length=1)] | None = None
    oidc: OidcSettings | None = None

    @model_validator(mode="after")
    def _check_reach(self) -> ConsoleSettings:
        if (self.certificate_file is None) is not (self.key_file is None):
            raise ValueError("`certificateFile` and `keyFile` belong together; write both")
        if not self.listen.is_loopback and not ((self.token_file or self.oidc) and self.certificate_file):
            message = "beyond loopback the console needs `tokenFile` or `oidc`, `certificateFile` and `keyFile`"
            raise ValueError(f"{message}; write them, or listen on 127.0.0.1")
        return self
