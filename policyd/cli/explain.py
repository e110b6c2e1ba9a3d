"""Why a request was denied, in a line."""

from __future__ import annotations

from policyd.authz.ruling import Ruling
from policyd.cedar.http import HttpFacts


def explain(facts: HttpFacts, ruling: Ruling) -> str:
    """Why."""
    return "no policy permits it"
