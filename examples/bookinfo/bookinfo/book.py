"""The one book of the shop."""

from __future__ import annotations

from dataclasses import dataclass

ABOUT = "https://en.wikipedia.org/wiki/The_Comedy_of_Errors"


@dataclass(frozen=True, slots=True)
class Product:
    """A book as `/api/v1/products` lists it; `descriptionHtml` is markup of ours."""

    id: int
    title: str
    descriptionHtml: str  # noqa: N815  # the name in the JSON


PRODUCT = Product(
    0,
    "The Comedy of Errors",
    f'<a href="{ABOUT}" rel="noreferrer">Wikipedia Summary</a>: '
    "Two pairs of twins, parted at sea as infants, end up in the same town on the same day, and nobody in "
    "Ephesus can tell one from the other. A gold chain reaches the wrong man, a wife bars her own husband from "
    "his dinner, and a servant is beaten for every message that he did and did not deliver. By evening no one is "
    "sure of his own name, until an abbess opens her door and a family lost for decades counts itself again. "
    "It is one of Shakespeare’s earliest plays and his shortest: a farce of slapstick, puns and mistaken "
    "identity.",
)
