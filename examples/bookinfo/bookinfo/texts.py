"""What is said when something cannot be had: the words that mesh users look for."""

from __future__ import annotations

NO_RATINGS = "Ratings service is currently unavailable"


def sorry(service: str) -> str:
    """Say that what a service knows is not to be had now."""
    return f"Sorry, product {service} are currently unavailable for this book."
