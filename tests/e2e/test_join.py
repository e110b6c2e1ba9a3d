"""Another machine joins: with a token that is good once, for what it was made for, and for this mesh only."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from cryptography.x509 import (
    SubjectAlternativeName,
    UniformResourceIdentifier,
    load_pem_x509_certificates,
    verification,
)

from policyd.join_token import JoinToken, format_token, parse_token
from tests.e2e.conftest import RunningMesh, copy_of_bookinfo
from tests.e2e.joining import Serve, agent, restarted, token_of
from tests.e2e.rolling import application, with_agents_for_each
from tests.e2e.terminal import wait_until
from tests.e2e.wire import Refused, https, issue, policyd, records

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("join")]

SPIFFE = "spiffe://cluster.local/ns/default/sa/bookinfo-"


@pytest.fixture(scope="module")
def serve(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A control plane without agents or applications."""
    running = Serve(with_agents_for_each(copy_of_bookinfo(tmp_path_factory.mktemp("join") / "bookinfo", root)))
    yield running
    running.end()


@pytest.fixture
def mesh(serve: Serve) -> RunningMesh:
    return RunningMesh(serve.directory)


# ---- who joins


def test_an_agent_joins_with_a_token_and_its_sidecars_become_ready(mesh: RunningMesh, tmp_path: Path) -> None:
    token = token_of(mesh, "--agent", "vm-1")
    instances = {place["name"] for place in mesh.status()["instances"]}

    with agent(tmp_path / "vm", "--join", token) as joined:
        joined.wait("sidecar.ready", len(instances))

        assert joined.ready() == instances
        assert [each["spiffe_id"] for each in joined.said("agent.joined")] == ["spiffe://cluster.local/agent/vm-1"]
        proxies = mesh.says("proxy", "status")["proxies"]
        assert {(each["instance"], each["agent"]) for each in proxies if each["connected"]} == {
            (name, "vm-1") for name in instances
        }
        kept = stat.S_IMODE((joined.state / "agent.json").stat().st_mode), stat.S_IMODE(joined.state.stat().st_mode)
        assert kept == (0o600, 0o700)
        assert parse_token(token).secret not in joined.text

    assert joined.process.returncode == 0
    assert len(joined.said("sidecar.stopped")) == len(instances)


def test_an_agent_gets_the_sidecars_that_its_token_names_and_no_other(mesh: RunningMesh, tmp_path: Path) -> None:
    token = token_of(mesh, "--agent", "vm-2", "--workload", "ratings-v1", "--workload", SPIFFE + "details")

    with agent(tmp_path / "vm", "--join", token) as joined:
        joined.wait("sidecar.ready", 2)

        assert joined.ready() == {"ratings-v1", "details-v1"}
        assert [each["instances"] for each in joined.said("agent.assigned")] == [["details-v1", "ratings-v1"]]


def test_an_agent_that_has_joined_needs_no_token_to_start_again(mesh: RunningMesh, tmp_path: Path) -> None:
    with agent(tmp_path / "vm", "--join", token_of(mesh, "--agent", "vm-3", "--workload", "ratings-v1")) as joined:
        joined.wait("sidecar.ready")
    (tmp_path / "vm").rename(tmp_path / "before")

    with agent(tmp_path / "vm", "--dir", str(tmp_path / "before" / "state")) as again:
        again.wait("sidecar.ready")
        assert (again.said("agent.joined"), len(again.said("agent.resumed"))) == ([], 1)


def test_sidecars_go_on_while_policyd_is_away_and_the_agent_finds_it_again(
    serve: Serve, mesh: RunningMesh, tmp_path: Path
) -> None:
    place = mesh.place("ratings-v1")
    port = place["inbound_port"]
    page = issue(mesh.directory, "productpage-v1", tmp_path / "page")
    token = token_of(mesh, "--agent", "vm-4", "--workload", "ratings-v1")

    with application(place["app_port"]), agent(tmp_path / "vm", "--join", token) as joined:
        joined.wait("sidecar.ready")
        assert https(port, page, "/ratings/0").status == 200

        serve.kill()
        joined.wait("agent.disconnected")
        away = https(port, page, "/ratings/0")
        # the sidecar still knows who it is and who asks; without a decision nothing passes, and that is no 403
        assert away.status == 503
        assert f"{away.peer.serial_number:032x}" == joined.said("sidecar.identity")[0]["serial"]

        serve.start()
        joined.wait("agent.connected", 2)
        wait_until(lambda: https(port, page, "/ratings/0").status == 200, 20)
        assert len(joined.said("sidecar.starting")) == 1


def test_no_request_fails_while_sidecars_restart_one_after_another(mesh: RunningMesh, tmp_path: Path) -> None:
    callers = restarted(mesh, tmp_path)
    assert callers.failed == 0, callers.seen


# ---- who does not


def used(mesh: RunningMesh, folder: Path) -> str:
    token = token_of(mesh, "--agent", "first", "--workload", "ratings-v1")
    with agent(folder, "--join", token) as first:
        first.wait("agent.joined")
    return token


def expired(mesh: RunningMesh, _folder: Path) -> str:
    made = mesh.says("ca", "token", "create", "--ttl", "1s")
    wait_until(lambda: datetime.now(UTC).timestamp() > made["expires_at"], 5)
    token: str = made["token"]
    return token


def changed(mesh: RunningMesh, **fields: str) -> str:
    token: JoinToken = parse_token(token_of(mesh))
    return format_token(replace(token, **fields))


REFUSED = {
    "a token that was used": (used, 3, "policyd refuses the join token"),
    "a token that has expired": (expired, 3, "policyd refuses the join token"),
    "a secret that nobody made": (lambda mesh, _: changed(mesh, secret="A" * 43), 3, "policyd refuses the join token"),
    "a token of another mesh": (
        lambda mesh, _: changed(mesh, root_sha256="0" * 64),
        3,
        "does not present the root that the join token names",
    ),
    "a token for another trust domain": (
        lambda mesh, _: changed(mesh, trust_domain="other.example"),
        1,
        "the bundle is of trust domain `cluster.local`, not `other.example`",
    ),
    "a token for another agent": (
        lambda mesh, _: changed(mesh, agent="admin"),
        1,
        "names `spiffe://cluster.local/agent/agent`, not `spiffe://cluster.local/agent/admin`",
    ),
    "no token at all": (lambda _mesh, _: "garbage", 3, "that is no join token"),
    "half a token": (lambda mesh, _: token_of(mesh)[:60], 3, "cut short or changed"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_other_tokens_are_refused_in_clear_words(mesh: RunningMesh, tmp_path: Path, what: str) -> None:
    make, code, says = REFUSED[what]
    token = make(mesh, tmp_path / "before")

    with agent(tmp_path / "vm", "--join", token) as stranger:
        ended, text = stranger.refused()

    assert ended == code
    assert says in text
    assert text.startswith("policyd-proxy: ")
    assert len(text.splitlines()) == 1
    assert token not in stranger.text
    assert stranger.said("sidecar.starting") == []
    assert not (stranger.state / "agent.json").exists()


def test_why_a_token_was_refused_is_on_record_and_not_told(mesh: RunningMesh, tmp_path: Path) -> None:
    with agent(tmp_path / "vm", "--join", used(mesh, tmp_path / "before")) as stranger:
        _, told = stranger.refused()

    [*_, record] = records(mesh.directory, kind="issuance", decision="deny")
    assert record["detail"]["reason"] == "used"
    assert record["detail"]["agent"] == "first"
    assert "was used" not in told

    address = mesh.status()["http_address"]
    metrics = httpx.get(f"http://{address}/metrics").text
    [counted] = [
        line for line in metrics.splitlines() if line.startswith('policyd_certificates_refused_total{code="token"}')
    ]
    assert float(counted.split()[-1]) >= 1


def test_a_token_is_not_spent_on_a_server_that_is_not_the_one(mesh: RunningMesh, tmp_path: Path) -> None:
    token = token_of(mesh, "--agent", "careful", "--workload", "ratings-v1")
    elsewhere = format_token(replace(parse_token(token), root_sha256="0" * 64))
    with agent(tmp_path / "no", "--join", elsewhere) as stranger:
        assert stranger.refused()[0] == 3

    with agent(tmp_path / "yes", "--join", token) as joined:
        joined.wait("agent.joined")


# ---- certificates by hand


def test_a_certificate_by_hand_is_that_workloads_and_its_key_is_private(mesh: RunningMesh, tmp_path: Path) -> None:
    identity = issue(mesh.directory, "productpage-v1", tmp_path / "page")

    names = identity.leaf.extensions.get_extension_for_class(SubjectAlternativeName).value
    assert names.get_values_for_type(UniformResourceIdentifier) == [SPIFFE + "productpage"]
    assert stat.S_IMODE(identity.key.stat().st_mode) == 0o600
    leaf, *rest = load_pem_x509_certificates(identity.certificate.read_bytes())
    store = verification.Store(load_pem_x509_certificates(identity.roots.read_bytes()))
    verified = verification.PolicyBuilder().store(store).build_client_verifier().verify(leaf, rest)
    assert len(verified.chain) == 3


@pytest.mark.parametrize(
    ("workload", "code", "says"),
    [
        (SPIFFE + "nobody", 1, f"`{SPIFFE}nobody` is no workload of this mesh"),
        ("spiffe://other.example/ns/default/sa/bookinfo-reviews", 1, "is no workload of this mesh"),
        ("spiffe://cluster.local/policyd/server", 1, "is no workload of this mesh"),
        ("spiffe://cluster.local/agent/up", 1, "is no workload of this mesh"),
        ("nobody", 3, "nobody"),
    ],
)
def test_nobody_else_gets_one(mesh: RunningMesh, tmp_path: Path, workload: str, code: int, says: str) -> None:
    done = policyd(mesh.directory, "ca", "issue", workload, "--out", str(tmp_path / "id"))

    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert not (tmp_path / "id").exists()


def test_without_a_sidecar_nobody_answers(mesh: RunningMesh, tmp_path: Path) -> None:
    page = issue(mesh.directory, "productpage-v1", tmp_path / "page")
    with pytest.raises(Refused):
        https(mesh.place("ratings-v1")["inbound_port"], page, "/ratings/0")
