"""The JSON that the services exchange, as frozen values; what does not fit the shape is refused on arrival."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

Text = Annotated[str, Meta(max_length=2000)]
Word = Annotated[str, Meta(max_length=64)]
Stars = Annotated[int, Meta(ge=0, le=5)]


class Details(Struct, frozen=True):
    """`GET /details/{id}` of details."""

    id: int
    author: Text
    year: int
    type: Text
    pages: int
    publisher: Text
    language: Text
    isbn_10: Text = field(name="ISBN-10")
    isbn_13: Text = field(name="ISBN-13")


class Rating(Struct, frozen=True, omit_defaults=True):
    """Stars and their colour, or why there are none."""

    stars: Stars | None = None
    color: Word | None = None
    error: Text | None = None


class Review(Struct, frozen=True, omit_defaults=True):
    """One review; without `rating` where the version knows none."""

    reviewer: Text
    text: Text
    rating: Rating | None = None


class Reviews(Struct, frozen=True):
    """`GET /reviews/{id}` of reviews; `id` is a text there, `podname` and `clustername` say who answered."""

    id: Word
    podname: Text
    clustername: Text
    reviews: Annotated[tuple[Review, ...], Meta(max_length=100)]


Votes = Annotated[dict[Word, Stars], Meta(max_length=100)]


class Ratings(Struct, frozen=True):
    """`GET /ratings/{id}` of ratings: stars by reviewer."""

    id: int
    ratings: Votes
