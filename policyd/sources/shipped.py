"""What ships with policyd: the three schemas and the built-in policies.

Law: read from the installed package, or from the checkout's own folder where the package is used in place;
nothing that is declared replaces a schema.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from policyd.errors import InvalidInput, Problem

SchemaName = Literal["mesh", "issuance", "operators"]
PoliciesName = Literal["issuance", "operators"]

_PACKAGED = "_policies"  # where a wheel carries the checkout's `policies/`


def shipped_schema(name: SchemaName) -> str:
    """Return the text of a schema; raises InvalidInput where the installation lacks it."""
    return _read(f"{name}.cedarschema")


def shipped_policies(name: PoliciesName) -> dict[str, str]:
    """Return the built-in policies of a set as `{file: text}`, the file named as messages should show it."""
    return {f"policies/{name}.cedar": _read(f"{name}.cedar")}


def _folder() -> Traversable:
    packaged = files("policyd") / _PACKAGED
    if packaged.is_dir():
        return packaged
    return Path(__file__).parents[2] / "policies"


def _read(name: str) -> str:
    try:
        return (_folder() / name).read_text(encoding="utf-8")
    except OSError as error:
        problem = Problem(
            code="shipped",
            message=f"the installation lacks `{name}`",
            remedy="install policyd again, or set up the checkout",
        )
        raise InvalidInput([problem]) from error
