"""An agent gets what it is registered for, of what is declared, and nothing of anybody else's."""

from __future__ import annotations

import pytest

from policyd.ca.assignment import Registration, instances_for, may_obtain
from policyd.mesh.model import Workload
from policyd.spiffe import SpiffeId
from tests.ca.samples import DOMAIN, LAPTOP, RATINGS, REVIEWS, a_mesh

EVERYTHING = Registration("laptop")
ONLY_REVIEWS = Registration("laptop", frozenset({REVIEWS}))
SERVER = SpiffeId.server(DOMAIN)
OTHER_AGENT = SpiffeId.agent(DOMAIN, "desktop")
GONE = SpiffeId.workload(DOMAIN, "default", "gone")
FOREIGN = SpiffeId.workload("partner.org", "default", "reviews")


@pytest.mark.parametrize(
    ("registration", "identity", "expected"),
    [
        (EVERYTHING, REVIEWS, True),
        (EVERYTHING, RATINGS, True),
        (ONLY_REVIEWS, REVIEWS, True),
        (ONLY_REVIEWS, RATINGS, False),
        (EVERYTHING, GONE, False),
        (Registration("laptop", frozenset({GONE})), GONE, False),
        (EVERYTHING, LAPTOP, False),
        (EVERYTHING, OTHER_AGENT, False),
        (EVERYTHING, SERVER, False),
        (EVERYTHING, FOREIGN, False),
        (EVERYTHING, SpiffeId(DOMAIN, ""), False),
    ],
)
def test_who_may_obtain_what(registration: Registration, identity: SpiffeId, expected: bool) -> None:
    assert may_obtain(registration, identity, a_mesh()) is expected


@pytest.mark.parametrize("identity", [SERVER, OTHER_AGENT, FOREIGN])
def test_not_even_a_declaration_gives_away_an_agent_s_or_the_server_s_identity(identity: SpiffeId) -> None:
    mesh = a_mesh(workloads={identity: Workload(identity)})
    assert not may_obtain(Registration("laptop", frozenset({identity})), identity, mesh)


def test_an_agent_runs_the_instances_of_the_identities_it_may_obtain() -> None:
    names = [[i.name for i in instances_for(registration, a_mesh())] for registration in (EVERYTHING, ONLY_REVIEWS)]
    assert names == [["ratings-v1", "reviews-v1", "reviews-v2"], ["reviews-v1", "reviews-v2"]]


def test_what_another_agent_s_registration_names_is_that_agent_s() -> None:
    node = Registration("node", frozenset({REVIEWS}))

    names = [[i.name for i in instances_for(each, a_mesh(), [EVERYTHING, node])] for each in (EVERYTHING, node)]

    assert names == [["ratings-v1"], ["reviews-v1", "reviews-v2"]]
