"""What a host name means: a service by any of its names, and no other name does; and which hosts a pattern covers."""

from __future__ import annotations

import pytest

from policyd.mesh.hosts import covers, overlap, resolve


@pytest.mark.parametrize(
    "host", ["", "*", "*.default", "www.example.com", "reviews.svc", "a.b.c.svc", "a.b.svc.other.local"]
)
def test_other_names_mean_no_service(host: str) -> None:
    assert resolve(host, "default") is None


@pytest.mark.parametrize(
    ("pattern", "host", "covered"),
    [
        ("*", "example.com", True),
        ("*", "*.example.com", True),
        ("example.com", "example.com", True),
        ("*.example.com", "www.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "*.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "badexample.com", False),
        ("example.com", "www.example.com", False),
        ("www.example.com", "*.example.com", False),
    ],
)
def test_patterns_cover_hosts(pattern: str, host: str, covered: bool) -> None:
    assert covers(pattern, host) is covered
    assert overlap(host, pattern) is (covered or covers(host, pattern))
