"""Every spelling of a service's name means it, and a destination means a service and a port."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.mesh.hosts import resolve
from policyd.mesh.istio.destination import Destination, PortSelector
from policyd.mesh.model import Port, Service
from policyd.mesh.service_names import domains, names, target

LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True).filter(lambda text: text != "svc")
REVIEWS = Service("reviews", "default", (Port(9080),))
TWO = Service("two", "default", (Port(8080), Port(80)))


def test_a_service_has_four_names_within_its_namespace_and_three_without() -> None:
    full = ("reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local")
    assert names(REVIEWS, "default") == ("reviews", *full)
    assert names(REVIEWS, "shop") == full


def test_a_name_without_port_means_the_default_port() -> None:
    assert domains(REVIEWS, 9080, "shop") == (
        "reviews.default",
        "reviews.default.svc",
        "reviews.default.svc.cluster.local",
        "reviews.default:9080",
        "reviews.default.svc:9080",
        "reviews.default.svc.cluster.local:9080",
    )
    assert "two" in domains(TWO, 80, "default")
    assert "two" not in domains(TWO, 8080, "default")


@given(LABELS, LABELS, LABELS)
def test_every_name_of_a_service_resolves_to_it(name: str, namespace: str, caller: str) -> None:
    service = Service(name, namespace, (Port(80),))
    assert {resolve(host, caller) for host in names(service, caller)} == {service.id}


@given(
    st.lists(LABELS, min_size=1, max_size=2, unique=True),
    st.lists(st.integers(1, 65535), min_size=1, max_size=3, unique=True),
)
def test_no_two_ports_of_a_mesh_share_a_domain(services: list[str], ports: list[int]) -> None:
    found = [
        domain
        for name in services
        for port in ports
        for domain in domains(Service(name, "default", tuple(Port(p) for p in ports)), port, "default")
    ]
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("destination", "found"),
    [
        (Destination(host="reviews"), (REVIEWS, 9080)),
        (Destination(host="reviews.default.svc.cluster.local", port=PortSelector(number=9080)), (REVIEWS, 9080)),
        (Destination(host="two", port=PortSelector(number=8080)), (TWO, 8080)),
        (Destination(host="two"), None),
        (Destination(host="reviews", port=PortSelector(number=80)), None),
        (Destination(host="nobody"), None),
    ],
)
def test_a_destination_means_a_service_and_a_port(destination: Destination, found: tuple[Service, int] | None) -> None:
    assert target(destination, "default", {service.id: service for service in (REVIEWS, TWO)}) == found
