"""Details, asked over HTTP."""

from __future__ import annotations

import pytest
from bookinfo.details import build
from bookinfo.settings import Settings

from tests.bookinfo.conftest import Open

DETAILS = {
    "id": 0,
    "author": "William Shakespeare",
    "year": 1595,
    "type": "paperback",
    "pages": 200,
    "publisher": "PublisherA",
    "language": "English",
    "ISBN-10": "1234567890",
    "ISBN-13": "123-1234567890",
}


@pytest.mark.parametrize("book", [0, 7, 999_999_999])
async def test_every_book_has_the_same_details_under_its_own_number(client_of: Open, book: int) -> None:
    client = await client_of(build(Settings()))
    answer = await client.get(f"/details/{book}")
    assert (answer.status_code, answer.json()) == (200, {**DETAILS, "id": book})


@pytest.mark.parametrize("book", ["x", "-1", "1.0", "0x1", "1000000000", "9" * 5000, "%C2%B2", "%00", "1%0a", " "])
async def test_what_is_no_number_is_a_bad_request(client_of: Open, book: str) -> None:
    client = await client_of(build(Settings()))
    answer = await client.get(f"/details/{book}")
    assert (answer.status_code, answer.json()) == (400, {"error": "please provide a numeric book id"})


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/", 404, "Not Found"),
        ("GET", "/details", 404, "Not Found"),
        ("GET", "/details/0/", 404, "Not Found"),
        ("DELETE", "/details/0", 405, "Method Not Allowed"),
    ],
)
async def test_other_requests_are_refused(client_of: Open, method: str, path: str, status: int, message: str) -> None:
    client = await client_of(build(Settings()))
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"error": message})
