"""Tokens that are verified for nobody."""

from __future__ import annotations

from policyd.analysis.model import Analysed, Findings, at
from policyd.mesh.istio.request_authentication import RequestAuthentication


def find(analysed: Analysed) -> Findings:
    """RequestAuthentications where no policy reads of users: they refuse bad tokens, and that is all."""
    if analysed.policies_read_users:
        return
    for declared in analysed.declaration.of(RequestAuthentication):
        message = "tokens are verified here, and no policy reads `context.user`"
        remedy = "a request without a token passes; write a policy that asks for a user"
        yield at(declared, "PM0501", message, ("spec", "jwtRules"), remedy)
