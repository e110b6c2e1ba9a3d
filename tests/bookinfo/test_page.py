"""The pages as a browser gets them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bookinfo.page import COLORS, HEADERS, HERE, Pages, Service, star_class
from bookinfo.shapes import Details, Rating, Review, Reviews

DETAILS = Details(0, "William Shakespeare", 1595, "paperback", 200, "PublisherA", "English", "1234567890", "123-1")
EVIL = "<script>alert('x')</script>\"'&"


def reviews(*ratings: Rating | None, text: str = "Good.", cluster: str = "null") -> Reviews:
    written = tuple(Review(f"Reviewer{number}", text, rating) for number, rating in enumerate(ratings, 1))
    return Reviews("0", "reviews-v3", cluster, written)


def page(user: str | None = None, details: Details | None = DETAILS, said: Reviews | None = None) -> str:
    """Return the product page in one line, blanks made one."""
    return re.sub(r"\s+", " ", bytes(Pages().product(user, details, said).body).decode())


def test_the_page_has_the_titles_that_mesh_users_look_for() -> None:
    html = page()
    assert "<title>Simple Bookstore App</title>" in html
    assert "BookInfo Sample</a>" in html
    assert "<h1>The Comedy of Errors</h1>" in html


def test_details_are_a_table() -> None:
    html = page()
    assert re.findall(r'<th scope="col">(.*?)</th>', html) == ["ISBN-10", "Publisher", "Pages", "Type", "Language"]
    assert re.findall(r'<td data-label="(.*?)">(.*?)</td>', html) == [
        ("ISBN-10", "1234567890"),
        ("Publisher", "PublisherA"),
        ("Pages", "200"),
        ("Type", "paperback"),
        ("Language", "English"),
    ]


def test_stars_are_filled_and_coloured_by_the_rating() -> None:
    html = page(said=reviews(Rating(5, "black"), Rating(2, "red"), None))
    assert re.findall(r'class="stars (stars-\w+)" role="img" aria-label="(.*?)"', html) == [
        ("stars-black", "5 of 5 stars, black"),
        ("stars-red", "2 of 5 stars, red"),
    ]
    assert html.count('<svg class="star filled"') == 7
    assert html.count('<svg class="star"') == 3
    assert html.count("<blockquote>Good.</blockquote>") == 3


@pytest.mark.parametrize(
    ("cluster", "served"),
    [
        ("null", "Reviews served by: <code>reviews-v3</code></p>"),
        ("", "Reviews served by: <code>reviews-v3</code></p>"),
        ("east", "Reviews served by: <code>reviews-v3</code> on cluster <code>east</code></p>"),
    ],
)
def test_the_page_says_who_served_the_reviews(cluster: str, served: str) -> None:
    assert served in page(said=reviews(None, cluster=cluster))


@pytest.mark.parametrize("rating", [Rating(error="Ratings service is currently unavailable"), Rating()])
def test_a_review_without_its_rating_says_so(rating: Rating) -> None:
    html = page(said=reviews(rating))
    assert '<p class="no-stars" role="alert">Ratings service is currently unavailable</p>' in html
    assert "<blockquote>Good.</blockquote>" in html


def test_what_could_not_be_fetched_is_said_in_its_place() -> None:
    html = page(details=None, said=None)
    for what in ("details", "reviews"):
        assert (
            f"<h3>Error fetching product {what}</h3> "
            f"<p>Sorry, product {what} are currently unavailable for this book.</p>" in html
        )
    assert "<table" not in html
    assert "served by" not in html


def test_a_page_in_order_shows_no_failure() -> None:
    html = page(said=reviews(Rating(5, "red")))
    assert "Error fetching" not in html
    assert "Sorry" not in html
    assert "unavailable" not in html


def test_the_visitor_signs_in_or_out() -> None:
    assert '<form method="post" action="/login">' in page()
    signed_in = page("jason")
    assert '<span class="user">jason</span> <a href="/logout">(sign out)</a>' in signed_in
    assert "<form" not in signed_in


def test_nothing_that_others_say_becomes_markup() -> None:
    details = Details(0, EVIL, 1, EVIL, 1, EVIL, EVIL, EVIL, EVIL)
    said = Reviews("0", EVIL, EVIL, (Review(EVIL, EVIL, Rating(5, EVIL)), Review("b", "c", Rating(error=EVIL))))
    html = page(EVIL, details, said)
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&#34;&#39;&amp;") == 12


def test_pages_need_nothing_from_elsewhere_and_no_script() -> None:
    index = bytes(Pages().index(None, (Service("details", "details:9080", ""),)).body).decode()
    for html in (page(said=reviews(Rating(5, "red"))), index):
        assert re.findall(r'(?:src|href|action)="(?!/|#|https://en\.wikipedia\.org/)', html) == []
        assert re.findall(r"<script|<style|\sstyle=|\son\w+=", html) == []


def test_the_browser_is_told_to_keep_it_that_way() -> None:
    response = Pages().product(None, None, None)
    assert {name: response.headers[name] for name in HEADERS} == {
        "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "cache-control": "no-store",
    }


def test_the_index_lists_the_services() -> None:
    services = (Service("reviews", "reviews:9080", "ratings"), Service("ratings", "ratings:9080", ""))
    html = bytes(Pages().index(None, services).body).decode()
    assert re.findall(r'<td data-label="\w+">(?:<code>)?(.*?)(?:</code>)?</td>', html) == [
        "reviews", "reviews:9080", "ratings", "ratings", "ratings:9080", "nobody",
    ]  # fmt: skip
    assert re.findall(r'href="(/productpage\?.*?)"', html) == ["/productpage?u=normal", "/productpage?u=test"]


@pytest.mark.parametrize(("color", "name"), [("red", "stars-red"), ("x y", "stars-other"), (None, "stars-other")])
def test_only_known_colours_become_class_names(color: str | None, name: str) -> None:
    assert star_class(color) == name


def test_the_style_sheet_knows_every_colour_and_loads_nothing() -> None:
    sheet = (HERE / "static" / "bookinfo.css").read_text()
    assert [color for color in sorted(COLORS) if f".stars-{color} {{ color: var(--{color}); }}" not in sheet] == []
    assert re.findall(r"url\(|@import|https?:", sheet) == []


@pytest.mark.parametrize(
    ("name", "media"), [("bookinfo.css", "text/css; charset=utf-8"), ("icon.svg", "image/svg+xml")]
)
def test_static_files_are_sent_as_what_they_are(name: str, media: str) -> None:
    response = Pages().static(name)
    assert response is not None
    assert (response.headers["content-type"], bytes(response.body)) == (media, Path(HERE, "static", name).read_bytes())


@pytest.mark.parametrize("name", ["", "none.css", "../page.py", "/etc/passwd", "..", "\x00"])
def test_nothing_else_is_sent(name: str) -> None:
    assert Pages().static(name) is None
