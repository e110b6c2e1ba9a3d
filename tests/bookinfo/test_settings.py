"""What the environment may say, and what is refused."""

from __future__ import annotations

import pytest
from bookinfo.settings import Settings, read


def test_without_an_environment_the_services_are_where_mesh_users_expect_them() -> None:
    assert read({"HOSTNAME": "host"}) == Settings(
        port=9080,
        instance="host",
        cluster="null",
        version="v1",
        ratings_enabled=False,
        star_color="black",
        session_key="",
        addresses={"details": "details:9080", "reviews": "reviews:9080", "ratings": "ratings:9080"},
    )


def test_every_variable_is_heard() -> None:
    environment = {
        "PORT": "8000",
        "POLICYD_INSTANCE": "reviews-v3",
        "HOSTNAME": "host",
        "CLUSTER_NAME": "east",
        "SERVICE_VERSION": "v-faulty",
        "ENABLE_RATINGS": "TRUE",
        "STAR_COLOR": "red",
        "SESSION_KEY": "k",
        "SERVICES_DOMAIN": "default.svc",
        "DETAILS_HOSTNAME": "books",
        "RATINGS_SERVICE_PORT": "80",
    }
    assert read(environment) == Settings(
        port=8000,
        instance="reviews-v3",
        cluster="east",
        version="v-faulty",
        ratings_enabled=True,
        star_color="red",
        session_key="k",
        addresses={
            "details": "books.default.svc:9080",
            "reviews": "reviews.default.svc:9080",
            "ratings": "ratings.default.svc:80",
        },
    )


@pytest.mark.parametrize(
    ("environment", "enabled"),
    [
        ({}, False),
        ({"STAR_COLOR": "black"}, True),
        ({"ENABLE_RATINGS": "true"}, True),
        ({"ENABLE_RATINGS": "false", "STAR_COLOR": "red"}, False),
    ],
)
def test_ratings_are_asked_for_when_told_so_or_when_stars_have_a_colour(
    environment: dict[str, str], *, enabled: bool
) -> None:
    assert read(environment).ratings_enabled is enabled


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PORT": "0"}, "PORT is `0`, which is no port; give a number from 1 to 65535"),
        ({"PORT": "65536"}, "PORT is `65536`, which is no port; give a number from 1 to 65535"),
        ({"PORT": "²"}, "PORT is `²`, which is no port; give a number from 1 to 65535"),
        ({"PORT": "8" * 5000}, f"PORT is `{'8' * 5000}`, which is no port; give a number from 1 to 65535"),
        (
            {"RATINGS_SERVICE_PORT": "tcp://10.0.0.1:9080"},
            "RATINGS_SERVICE_PORT is `tcp://10.0.0.1:9080`, which is no port; give a number from 1 to 65535",
        ),
        ({"ENABLE_RATINGS": "yes"}, "ENABLE_RATINGS is `yes`; give true or false"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        read(environment)
    assert str(refused.value) == message


def test_the_session_key_is_not_shown() -> None:
    assert "secret" not in repr(Settings(session_key="secret"))
