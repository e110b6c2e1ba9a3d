"""The administration API over a real Unix socket: what each call answers, refuses and records."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from structlog.testing import capture_logs

from policyd import __version__
from policyd._pb import admin_pb2 as pb
from policyd._pb import admin_pb2_grpc
from policyd.admin.facts import Addresses, Counts
from policyd.admin.mesh import MeshDesk, MeshParts
from policyd.admin.parts import Parts
from policyd.admin.policies import applied
from policyd.admin.service import AdminService, handler
from policyd.amend import Amender, hash_of
from policyd.audit.record import Entry
from policyd.ca.assignment import Registration
from policyd.ca.database import open_database
from policyd.ca.ledger import Ledger
from policyd.ca.serving.levels import Asked, Levels
from policyd.ca.tokens import Refused, Tokens
from policyd.cedar.engine import Engine
from policyd.cedar.model import Decision
from policyd.cedar.policies import load_policies
from policyd.config.addresses import Address
from policyd.config.console import ConsoleSettings
from policyd.environment import Level
from policyd.envoy_api import ROUTE
from policyd.errors import InvalidInput, Problem
from policyd.join_token import parse_token
from policyd.mesh.declare import declare
from policyd.mesh.model import Listen
from policyd.mesh.placement import Placement, SidecarPlace
from policyd.reload.live import Live, shipped_schemas
from policyd.reload.load import load
from policyd.server.decider_life import DeciderLife
from policyd.sources.files import Folder, digest
from policyd.spiffe import SpiffeId
from policyd.telemetry.traces_window import Window
from policyd.xds.inspection.service import SHOWN, NotShown
from policyd.xds.resources.model import Control
from policyd.xds.status import ProxyStatus, TypeStatus
from tests.ca.samples import NOW, REVIEWS, Office, a_csr
from tests.telemetry.spans import GOOD

TEXTS = {
    "workloads.yaml": "workloads: {reviews-v1: {service: reviews, port: 80}}\ngateways: {edge: {listen: 8080}}\n"
    "defaults: {serviceAccount: '{service}'}\n",
    "policies/reviews.cedar": '@id("read") permit (principal, action, resource == Service::"reviews.default");\n',
}
ADDRESSES = Addresses("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4")
EDGE = SpiffeId.workload("cluster.local", "default", "edge")
STRANGER = SpiffeId.workload("cluster.local", "default", "stranger")
OPERATOR = f'Operator::"unix:{os.getuid()}"'
DECIDER = DeciderLife("decide-1", Address("127.0.0.1", 2)).started(4711, 0.0).took("r1").opened(0.5)
Code = grpc.StatusCode


@dataclass
class Facts:
    """What the server knows of itself, as the test wants it."""

    live: Live
    refused: tuple[Problem, ...] = ()
    trouble: str = ""
    said: tuple[str, ...] = ()
    connected: tuple[ProxyStatus, ...] = ()
    agents_connected: tuple[str, ...] = ()
    decider: DeciderLife = DECIDER

    def not_ready(self) -> str:
        return self.trouble

    def counts(self) -> Counts:
        return Counts(decisions=7, denials=2, errors=1)

    def shadow_counts(self) -> dict[str, int]:
        return {"agree": 4, "would_deny": 3, "would_allow": 2, "error": 1, "skipped": 0}

    def warnings(self) -> tuple[str, ...]:
        return self.said

    def proxies(self) -> tuple[ProxyStatus, ...]:
        return self.connected

    def agents(self) -> tuple[str, ...]:
        return self.agents_connected

    def troubles(self) -> dict[str, str]:
        return {}

    def deciders(self) -> tuple[DeciderLife, ...]:
        return (self.decider,)


@dataclass
class Desk:
    """The API, called through its socket, and all that stands behind it."""

    office: Office
    facts: Facts
    tokens: Tokens
    ledger: Ledger
    stopped: list[bool] = field(default_factory=list)
    inspected: list[tuple[str, str, str]] = field(default_factory=list)
    shown: bytes | NotShown = b"held"
    invalid: tuple[Problem, ...] = ()
    window: Window = field(default_factory=lambda: Window(1 << 20))
    spoken: list[Level | None] = field(default_factory=list)
    levels: Levels = field(default_factory=lambda: Levels(lambda: None))
    stub: Any = None

    def check(self, folder: Folder) -> None:
        if self.invalid:
            raise InvalidInput(self.invalid)

    async def restart(self) -> None:
        self.facts.decider = self.facts.decider.started(4712, 1.0).took("r2").opened(2.0)

    async def speak(self, level: Level | None) -> Level:
        self.spoken.append(level)
        return level or "warning"

    async def inspect(self, agent: str, instance: str, kind: str) -> bytes:
        self.inspected.append((agent, instance, kind))
        if isinstance(self.shown, NotShown):
            raise self.shown
        return self.shown

    @property
    def recorded(self) -> list[Entry]:
        return self.office.recorder.entries

    async def refused(self, name: str, request: Any) -> tuple[grpc.StatusCode, str]:
        """How a call ends that is refused."""
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await getattr(self.stub, name)(request)
        return error.value.code(), error.value.details() or ""


@pytest.fixture(scope="module")
def live() -> Live:
    placed = Placement({"reviews-v1": SidecarPlace(21000, 21001, 21002, "s3cret")}, {"edge": (Listen(8080, 28080),)})
    folder = Folder(Path("mesh"), TEXTS, digest(TEXTS))
    control = Control("127.0.0.1", (9000,), SpiffeId.server("cluster.local"))
    return load(folder, shipped_schemas(), lambda declaration: placed, control)


@pytest.fixture
async def desk(live: Live, tmp_path: Path) -> AsyncIterator[Desk]:
    database = open_database(tmp_path / "tokens.db")
    office = Office(mesh=live.mesh)
    made = Desk(office, Facts(live), Tokens(database), Ledger(database))
    changes = MeshParts(
        live=lambda: made.facts.live,
        refused=lambda: made.facts.refused,
        amender=Amender(tmp_path, lambda: folder_of(tmp_path), made.check),
        change=lambda write: write(),
        record=office.recorder,
        now=lambda: NOW,
        proxies=made.facts.proxies,
    )
    parts = Parts(
        facts=made.facts,
        addresses=ADDRESSES,
        issuer=office.issuer,
        tokens=made.tokens,
        ledger=made.ledger,
        record=office.recorder,
        random=os.urandom,
        started_at=NOW,
        stop=lambda: made.stopped.append(True),
        restart=made.restart,
        inspect=made.inspect,
        sent=live.snapshots.get,
        mesh=MeshDesk(changes),
        policies=lambda request: applied(request, changes),
        window=made.window,
        speak=made.speak,
        levels=made.levels,
    )
    server = grpc.aio.server()
    handler(server, AdminService(parts))
    with tempfile.TemporaryDirectory(prefix="t") as short:  # socket paths end at 107 bytes
        server.add_insecure_port(f"unix:{short}/admin.sock")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{short}/admin.sock") as channel:
            made.stub = admin_pb2_grpc.AdminStub(channel)
            yield made
        await server.stop(None)
    database.close()


# ---- Status


async def test_status_says_what_is_in_force_and_where(desk: Desk, live: Live) -> None:
    desk.facts.said = ("the root certificate ends soon",)

    assert await desk.stub.Status(pb.StatusRequest()) == pb.StatusReply(
        version=__version__,
        trust_domain="cluster.local",
        ready=True,
        revision=live.ruling.revision,
        config=live.config,
        decisions=7,
        denials=2,
        errors=1,
        policies=1,
        http_address="127.0.0.1:4",
        xds_address="127.0.0.1:1",
        authz_address="127.0.0.1:2",
        attestation_address="127.0.0.1:3",
        started_at=int(NOW.timestamp()),
        pid=os.getpid(),
        warnings=["the root certificate ends soon"],
        deciders=[
            pb.Decider(
                name="decide-1", address="127.0.0.1:2", pid=4711, state="deciding", revision="r1", trouble="", starts=1
            )
        ],
    )


async def test_status_says_what_is_tried_beside_it(desk: Desk, live: Live) -> None:
    tried = replace(live.ruling, revision="77aa")
    desk.facts.live = replace(live, ruling=replace(live.ruling, shadow=tried), shadow_place="next")

    assert (await desk.stub.Status(pb.StatusRequest())).shadow == pb.Shadow(
        revision="77aa", policies=1, folder="next", agree=4, would_deny=3, would_allow=2, errors=1
    )


async def test_status_says_why_a_change_is_refused(desk: Desk) -> None:
    desk.facts.trouble = "a change is refused"
    desk.facts.refused = (Problem("policy", "does not parse", "policies/a.cedar", 3, 7, "close it"),)

    status = await desk.stub.Status(pb.StatusRequest())

    assert (status.ready, status.not_ready_because) == (False, "a change is refused")
    assert list(status.refused) == [
        pb.Refusal(code="policy", message="does not parse", file="policies/a.cedar", line=3, remedy="close it")
    ]


async def test_decision_processes_are_restarted_and_that_is_on_record(desk: Desk) -> None:
    reply = await desk.stub.RestartDeciders(pb.RestartDecidersRequest())

    [entry] = desk.recorded
    assert (entry.kind, entry.principal, entry.detail) == ("operation", OPERATOR, {"operation": "deciders.restart"})
    assert [(one.pid, one.revision, one.starts) for one in reply.deciders] == [(4712, "r2", 2)]


# ---- CreateToken


async def test_a_token_joins_the_agent_that_it_names(desk: Desk) -> None:
    reply = await desk.stub.CreateToken(pb.CreateTokenRequest(agent="laptop", workloads=[str(REVIEWS)]))

    token = parse_token(reply.token)
    assert (token.address, token.agent, token.trust_domain) == (ADDRESSES.attestation, "laptop", "cluster.local")
    assert token.root_sha256 == desk.office.authority.root_sha256
    assert reply.expires_at == int(NOW.timestamp()) + 600
    with desk.tokens.claim(token.secret, NOW) as claimed:
        assert claimed == Registration("laptop", frozenset({REVIEWS}))


async def test_a_token_is_on_record_without_its_secret(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    reply = await desk.stub.CreateToken(pb.CreateTokenRequest(agent="laptop", ttl_seconds=60))

    [entry] = desk.recorded
    assert (entry.kind, entry.decision, entry.principal) == ("operation", "allow", OPERATOR)
    assert entry.detail == {"operation": "token.create", "agent": "laptop", "expires_at": "2026-11-23T12:01:00Z"}
    told = repr(entry) + "".join(capfd.readouterr())
    assert reply.token not in told
    assert parse_token(reply.token).secret not in told


async def test_each_token_of_a_name_is_good_and_the_last_to_join_says_what_the_agent_may_obtain(desk: Desk) -> None:
    """A node that was lost joins again by its name; its first token is not taken back by the second."""
    requests = [pb.CreateTokenRequest(agent="laptop", workloads=[str(one)]) for one in (REVIEWS, EDGE)]
    first, second = [parse_token((await desk.stub.CreateToken(request)).token).secret for request in requests]

    for secret in (second, first):
        with desk.tokens.claim(secret, NOW) as claimed:
            assert isinstance(claimed, Registration)

    assert desk.tokens.agents() == (Registration("laptop", frozenset({REVIEWS})),)
    with desk.tokens.claim(first, NOW) as again:
        assert again == Refused("used", "laptop")


async def test_a_second_agent_does_not_run_what_the_first_one_runs(desk: Desk) -> None:
    """Without named workloads it would start every sidecar twice, on the same ports."""
    token = parse_token((await desk.stub.CreateToken(pb.CreateTokenRequest(agent="first"))).token)
    with desk.tokens.claim(token.secret, NOW):
        pass
    desk.facts.agents_connected = ("first",)

    told = await desk.refused("CreateToken", pb.CreateTokenRequest(agent="second"))

    assert told[0] is Code.INVALID_ARGUMENT
    assert told[1].startswith(
        "the agent `first` runs all that no other agent's registration names; name with --workload"
    )
    await desk.stub.CreateToken(pb.CreateTokenRequest(agent="second", workloads=[str(REVIEWS)]))
    await desk.stub.CreateToken(pb.CreateTokenRequest(agent="first"))
    desk.facts.agents_connected = ()
    await desk.stub.CreateToken(pb.CreateTokenRequest(agent="second"))


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (
            pb.CreateTokenRequest(agent="laptop", workloads=[str(STRANGER)]),
            Code.NOT_FOUND,
            f"`{STRANGER}` is no workload of this mesh; declare it in workloads.yaml",
        ),
        (
            pb.CreateTokenRequest(agent="laptop", workloads=["reviews"]),
            Code.INVALID_ARGUMENT,
            "`reviews` is no SPIFFE ID",
        ),
        (
            pb.CreateTokenRequest(agent="Lap Top"),
            Code.INVALID_ARGUMENT,
            "`Lap Top` is no name for an agent",
        ),
        (pb.CreateTokenRequest(), Code.INVALID_ARGUMENT, "`` is no name for an agent"),
        (
            pb.CreateTokenRequest(agent="laptop", ttl_seconds=8 * 86_400),
            Code.INVALID_ARGUMENT,
            "a join token lives up to 7 days, not 8 days, 0:00:00; ten minutes are the default",
        ),
        (
            pb.CreateTokenRequest(agent="laptop", ttl_seconds=2**63 - 1),
            Code.INVALID_ARGUMENT,
            "a join token lives up to 7 days, not ",
        ),
        (
            pb.CreateTokenRequest(agent="laptop", ttl_seconds=-(2**63)),
            Code.INVALID_ARGUMENT,
            "a join token lives up to 7 days, not -",
        ),
        (
            pb.CreateTokenRequest(agent="laptop", workloads=["x"] * 10_001),
            Code.INVALID_ARGUMENT,
            "a join token names at most 10000 workloads; name none for all",
        ),
    ],
)
async def test_a_token_is_refused_for_a_reason(
    desk: Desk, request_: pb.CreateTokenRequest, code: grpc.StatusCode, text: str
) -> None:
    refusal = await desk.refused("CreateToken", request_)

    assert refusal[0] is code
    assert refusal[1].startswith(text), refusal
    assert desk.recorded == []


async def test_without_a_record_no_token_is_handed_out_and_the_owner_is_told_why(desk: Desk) -> None:
    desk.office.recorder.full = True

    assert await desk.refused("CreateToken", pb.CreateTokenRequest(agent="laptop")) == (
        Code.FAILED_PRECONDITION,
        "the disk is full",
    )


# ---- Issue


async def test_a_declared_workload_gets_a_certificate_for_the_key_of_the_request(desk: Desk) -> None:
    reply = await desk.stub.Issue(pb.IssueRequest(spiffe_id=str(REVIEWS), csr=a_csr(), ttl_seconds=600))

    leaf = x509.load_der_x509_certificate(reply.chain[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(REVIEWS)]
    assert (leaf.not_valid_after_utc - NOW).total_seconds() == 600
    assert list(reply.roots) == [desk.office.authority.root_der]
    [entry] = desk.recorded
    assert (entry.kind, entry.decision, entry.detail["requested_by"]) == ("issuance", "allow", "operator")
    assert entry.detail["serial"] == f"{leaf.serial_number:032x}"


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        (
            {"spiffe_id": str(STRANGER)},
            Code.PERMISSION_DENIED,
            f"`{STRANGER}` is no workload of this mesh; declare it in workloads.yaml",
        ),
        ({"spiffe_id": str(SpiffeId.server("cluster.local"))}, Code.PERMISSION_DENIED, "is no workload of this mesh"),
        ({"spiffe_id": "https://reviews"}, Code.INVALID_ARGUMENT, "`https://reviews` is no SPIFFE ID"),
        ({"spiffe_id": ""}, Code.INVALID_ARGUMENT, "`` is no SPIFFE ID"),
        ({"csr": b"nonsense"}, Code.INVALID_ARGUMENT, "request"),
        ({"csr": a_csr(rsa.generate_private_key(65537, 1024))}, Code.INVALID_ARGUMENT, "2048"),
        (
            {"ttl_seconds": -1},
            Code.INVALID_ARGUMENT,
            "a certificate lives at least five seconds; ask for a longer life",
        ),
    ],
)
async def test_a_certificate_is_refused_for_a_reason(
    desk: Desk, changes: dict[str, Any], code: grpc.StatusCode, text: str
) -> None:
    fields = {"spiffe_id": str(REVIEWS), "csr": a_csr()} | changes

    refusal = await desk.refused("Issue", pb.IssueRequest(**fields))

    assert refusal[0] is code, refusal
    assert text in refusal[1]
    assert [entry.decision for entry in desk.recorded if entry.kind == "issuance"] in (["deny"], ["error"], [])


async def test_a_life_beyond_all_clocks_ends_with_its_authority(desk: Desk) -> None:
    reply = await desk.stub.Issue(pb.IssueRequest(spiffe_id=str(REVIEWS), csr=a_csr(), ttl_seconds=2**63 - 1))

    leaf = x509.load_der_x509_certificate(reply.chain[0])
    assert leaf.not_valid_after_utc == desk.office.authority.intermediate.not_valid_after_utc


async def test_what_policies_do_not_grant_is_not_issued_to_the_owner_either(desk: Desk) -> None:
    desk.office.decider.decision = Decision(False)

    assert await desk.refused("Issue", pb.IssueRequest(spiffe_id=str(REVIEWS), csr=a_csr())) == (
        Code.PERMISSION_DENIED,
        f"`{REVIEWS}` is not granted; look at the issuance policies",
    )
    assert [entry.decision for entry in desk.recorded] == ["deny"]


async def test_without_a_record_there_is_no_certificate(desk: Desk) -> None:
    desk.office.recorder.full = True

    assert await desk.refused("Issue", pb.IssueRequest(spiffe_id=str(REVIEWS), csr=a_csr())) == (
        Code.FAILED_PRECONDITION,
        "the disk is full",
    )


# ---- ShowCa, Instances, Proxies, Shutdown


async def test_the_authority_is_shown_without_its_keys(desk: Desk) -> None:
    desk.ledger.add("workload")

    reply = await desk.stub.ShowCa(pb.ShowCaRequest())

    authority = desk.office.authority
    assert x509.load_pem_x509_certificate(reply.root_pem.encode()) == authority.root
    assert x509.load_pem_x509_certificate(reply.intermediate_pem.encode()) == authority.intermediate
    assert (reply.trust_domain, reply.root_sha256, reply.issued) == ("cluster.local", authority.root_sha256, 1)
    assert reply.root_not_after == int(authority.root.not_valid_after_utc.timestamp())
    assert reply.intermediate_not_after == int(authority.intermediate.not_valid_after_utc.timestamp())
    assert "PRIVATE" not in str(reply)


async def test_each_instance_has_its_place_and_what_its_application_needs(desk: Desk) -> None:
    edge, reviews = (await desk.stub.Instances(pb.InstancesRequest())).instances

    assert reviews == pb.InstancePlace(
        name="reviews-v1",
        spiffe_id=str(REVIEWS),
        service="reviews.default",
        role="sidecar",
        address="127.0.0.1",
        app_port=21000,
        inbound_port=21001,
        outbound_port=21002,
        proxy_url="http://reviews-v1:s3cret@127.0.0.1:21002",
        ports=[pb.PortPlace(service_port=80, name="http", protocol="http", app_port=21000, inbound_port=21001)],
    )
    assert (edge.name, edge.role, edge.spiffe_id, edge.proxy_url) == ("edge", "gateway", str(EDGE), "")


async def test_every_declared_proxy_is_listed_connected_or_not(desk: Desk) -> None:
    types = (TypeStatus("listeners", "rejected", "no such filter", 12.5, 3),)
    desk.facts.connected = (ProxyStatus("reviews-v1", str(REVIEWS), True, "1.40.0", 10.5, types),)
    with desk.tokens.claim(await _secret(desk), NOW):
        pass

    edge, reviews = (await desk.stub.Proxies(pb.ProxiesRequest())).proxies

    assert edge == pb.ProxyStatus(instance="edge", spiffe_id=str(EDGE))
    assert reviews == pb.ProxyStatus(
        instance="reviews-v1",
        spiffe_id=str(REVIEWS),
        agent="laptop",
        connected=True,
        envoy_version="1.40.0",
        connected_at=10,
        types=[
            pb.TypeStatus(type="listeners", state="rejected", rejection="no such filter", changed_at=12, resources=3)
        ],
    )


# ---- Inspect


async def test_what_a_proxy_holds_is_asked_of_the_agent_that_runs_it(desk: Desk, live: Live) -> None:
    with desk.tokens.claim(await _secret(desk), NOW):
        pass

    plain = await desk.stub.Inspect(pb.InspectRequest(instance="reviews-v1", kind="clusters"))
    both = await desk.stub.Inspect(pb.InspectRequest(instance="reviews-v1", kind="routes", sent=True))
    sent = live.snapshots["reviews-v1"].of(ROUTE)["outbound"]

    assert plain == pb.InspectReply(held=b"held")
    assert list(both.sent) == [pb.SentResource(name="outbound", version=sent.version, body=sent.body)]
    assert desk.inspected == [("laptop", "reviews-v1", "clusters"), ("laptop", "reviews-v1", "routes")]


async def test_what_cannot_be_looked_at_is_refused(desk: Desk) -> None:
    asked = pb.InspectRequest(instance="reviews-v1", kind="clusters")
    invalid, cannot = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
    kinds = f"known are {', '.join(SHOWN)}"

    assert await desk.refused("Inspect", asked) == (cannot, "no agent runs `reviews-v1`")
    with desk.tokens.claim(await _secret(desk), NOW):
        pass
    desk.shown = NotShown("the agent `laptop` is not connected", remedy="start it again")
    assert await desk.refused("Inspect", asked) == (cannot, "the agent `laptop` is not connected; start it again")
    nobody = pb.InspectRequest(instance="nobody", kind="clusters")
    assert await desk.refused("Inspect", nobody) == (
        grpc.StatusCode.NOT_FOUND,
        "no instance is called `nobody`; there are edge, reviews-v1",
    )
    near = pb.InspectRequest(instance="reviews-v2", kind="clusters")
    assert await desk.refused("Inspect", near) == (
        grpc.StatusCode.NOT_FOUND,
        "no instance is called `reviews-v2`; did you mean `reviews-v1`?",
    )
    config = pb.InspectRequest(instance="reviews-v1", kind="../config_dump")
    assert await desk.refused("Inspect", config) == (invalid, f"`../config_dump` is no kind; {kinds}")


# ---- Resources and ChangeMesh

SERVICE = (
    "apiVersion: v1\nkind: Service\nmetadata: {name: also}\nspec: {selector: {app: reviews}, ports: [{port: 80}]}\n"
)
CREATED = pb.MeshChange(kind="Service", namespace="default", name="also", file="mesh/service-also.yaml", what="created")


def folder_of(directory: Path) -> Folder:
    files = {f"mesh/{one.name}": one.read_text() for one in (directory / "mesh").glob("*.yaml")}
    return Folder(directory, {**TEXTS, **files}, "")


async def test_resources_in_force_are_shown_as_they_were_declared(desk: Desk, live: Live) -> None:
    texts = {**TEXTS, "mesh/a.yaml": f"# a\n{SERVICE}"}
    desk.facts.live = replace(live, declaration=declare(texts))

    found = (await desk.stub.Resources(pb.ResourcesRequest(kind="svc"))).resources

    value = json.dumps(yaml.safe_load(SERVICE))
    shown = pb.MeshResource(kind="Service", namespace="default", name="also", file="mesh/a.yaml", line=3, json=value)
    assert list(found) == [shown]
    assert list((await desk.stub.Resources(pb.ResourcesRequest(name="other"))).resources) == []
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    nothing = await desk.refused("Resources", pb.ResourcesRequest(kind="Srevice"))
    assert nothing == (invalid, "`Srevice` is no kind of a mesh folder; did you mean `Service`?")


async def test_a_change_is_on_record_and_written(desk: Desk, tmp_path: Path) -> None:
    reply = await desk.stub.ChangeMesh(pb.ChangeMeshRequest(apply=SERVICE))

    assert reply == pb.ChangeMeshReply(changes=[CREATED])
    assert (tmp_path / "mesh" / "service-also.yaml").read_text() == SERVICE
    detail = {
        "operation": "mesh.apply",
        "files": ["mesh/service-also.yaml"],
        "changes": ["created Service default/also"],
        "count": 1,
    }
    (entry,) = desk.recorded
    assert (entry.kind, entry.decision, entry.principal, entry.detail) == ("operation", "allow", OPERATOR, detail)
    gone = pb.ResourceName(kind="svc", name="also")
    removed = await desk.stub.ChangeMesh(pb.ChangeMeshRequest(remove=[gone]))
    assert [one.what for one in removed.changes] == ["removed"]
    assert not (tmp_path / "mesh" / "service-also.yaml").exists()


async def test_what_would_be_refused_is_told_and_not_written(desk: Desk, tmp_path: Path) -> None:
    desk.invalid = (Problem("reference", "it leads nowhere", "mesh/service-also.yaml", 3, remedy="correct it"),)

    reply = await desk.stub.ChangeMesh(pb.ChangeMeshRequest(apply=SERVICE))

    told = pb.Refusal(
        code="reference", message="it leads nowhere", file="mesh/service-also.yaml", line=3, remedy="correct it"
    )
    assert reply == pb.ChangeMeshReply(refused=[told])
    assert (desk.recorded, (tmp_path / "mesh").exists()) == ([], False)


async def test_a_dry_run_writes_nothing(desk: Desk, tmp_path: Path) -> None:
    reply = await desk.stub.ChangeMesh(pb.ChangeMeshRequest(apply=SERVICE, dry_run=True))

    assert reply == pb.ChangeMeshReply(changes=[CREATED])
    assert (desk.recorded, (tmp_path / "mesh").exists()) == ([], False)


async def test_operators_policies_may_forbid_changes_and_that_is_on_record(
    desk: Desk, live: Live, tmp_path: Path
) -> None:
    schema = shipped_schemas().operators
    text = '@id("freeze") forbid (principal, action in Action::"touch", resource);'
    desk.facts.live = replace(live, operators=Engine(load_policies({"operators.cedar": text}, schema), schema))

    refusal = await desk.refused("ChangeMesh", pb.ChangeMeshRequest(apply=SERVICE))

    message = "the operators' policies forbid it: `freeze`; see operators.cedar"
    assert refusal == (grpc.StatusCode.PERMISSION_DENIED, message)
    (entry,) = desk.recorded
    assert (entry.decision, entry.reasons, entry.detail) == ("deny", ("freeze",), {"operation": "mesh.apply"})
    assert not (tmp_path / "mesh").exists()


async def test_what_cannot_be_recorded_is_not_written(desk: Desk, tmp_path: Path) -> None:
    desk.office.recorder.full = True

    refusal = await desk.refused("ChangeMesh", pb.ChangeMeshRequest(apply=SERVICE))

    assert refusal[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert not (tmp_path / "mesh").exists()


# ---- ApplyPolicies

FILE = "policies/reviews.cedar"
WAS = hash_of(TEXTS[FILE])
NEW = '@id("none") forbid (principal, action, resource);\n'


def edited(**more: str) -> pb.ApplyPoliciesRequest:
    """A file of policies as the console sends it, by the owner unless somebody else is named."""
    fields = {"who": f"unix:{os.getuid()}", "file": FILE, "text": NEW, "before": WAS}
    return pb.ApplyPoliciesRequest(**(fields | more))


def switched_on(desk: Desk, live: Live, operators: str = "") -> None:
    """The settings let the console apply; `operators` are the operators' policies."""
    schema = shipped_schemas().operators
    console = ConsoleSettings(apply=True)
    desk.facts.live = replace(
        live,
        settings=live.settings.model_copy(update={"console": console}),
        operators=Engine(load_policies({"operators.cedar": operators}, schema), schema) if operators else None,
    )


async def test_policies_of_the_console_are_on_record_and_written(desk: Desk, live: Live, tmp_path: Path) -> None:
    switched_on(desk, live)
    reply = await desk.stub.ApplyPolicies(edited())

    assert reply == pb.ApplyPoliciesReply(revision=live.ruling.revision)
    assert (tmp_path / FILE).read_text() == NEW
    [entry] = desk.recorded
    detail = {"operation": "policies.apply", "files": [FILE], "before": WAS, "after": hash_of(NEW)}
    assert (entry.kind, entry.decision, entry.reasons, entry.principal, entry.detail) == (
        "operation", "allow", ("owner",), OPERATOR, detail,
    )  # fmt: skip
    new = pb.ApplyPoliciesRequest(who=f"unix:{os.getuid()}", file="policies/new.cedar", text=NEW)
    await desk.stub.ApplyPolicies(new)
    assert (tmp_path / "policies" / "new.cedar").read_text() == NEW


APPLIES = '@id("a") permit (principal == Operator::"token:console", action == Action::"apply", resource);'
LOOKS = '@id("a") permit (principal == Operator::"token:console", action in Action::"look", resource);'
FREEZE = '@id("freeze") forbid (principal, action in Action::"touch", resource);'
SAYS = "the operators' policies do not allow"


@pytest.mark.parametrize(
    ("operators", "more", "code", "says", "kept"),
    [
        (None, {}, Code.PERMISSION_DENIED, "nothing is enforced from the console of this mesh", []),
        (FREEZE, {}, Code.PERMISSION_DENIED, f"{SAYS} `{OPERATOR[11:-1]}` to apply: `freeze`", ["deny"]),
        ("", {"who": "token:console"}, Code.PERMISSION_DENIED, f"{SAYS} `token:console` to apply: no policy", ["deny"]),
        (LOOKS, {"who": "token:console"}, Code.PERMISSION_DENIED, f"{SAYS} `token:console` to apply", ["deny"]),
        (APPLIES, {"who": "token:console", "before": ""}, Code.FAILED_PRECONDITION, "was changed meanwhile", []),
        ("", {"before": hash_of("other")}, Code.FAILED_PRECONDITION, "was changed meanwhile", []),
        ("", {"who": "root"}, Code.INVALID_ARGUMENT, "nothing to apply", []),
        ("", {"text": "x" * (256 * 1024 + 1)}, Code.INVALID_ARGUMENT, "nothing to apply", []),
        *(
            ("", {"file": file}, Code.INVALID_ARGUMENT, "is no file of policies", [])
            for file in (
                "", "operators.cedar", "policies/", "policies/.cedar", "policies/../operators.cedar", "policies/x.yaml",
                "/etc/x.cedar", "policies//x.cedar", "policies/\u202e.cedar", "policies/a/../../x.cedar",
                "policies/" + "x" * 400 + ".cedar", "policies/a\\b.cedar", "policies/sub/x.cedar",
            )
        ),
    ],
)  # fmt: skip
async def test_what_may_not_be_applied_is_not(
    desk: Desk, live: Live, tmp_path: Path, operators: str | None, more: dict[str, str], code: grpc.StatusCode,
    says: str, kept: list[str],
) -> None:  # fmt: skip
    if operators is not None:
        switched_on(desk, live, operators)

    refusal = await desk.refused("ApplyPolicies", edited(**more))

    assert refusal[0] is code
    assert says in refusal[1]
    assert [entry.decision for entry in desk.recorded] == kept
    assert not (tmp_path / "policies").exists()


async def test_policies_that_are_wrong_are_told_and_not_written(desk: Desk, live: Live, tmp_path: Path) -> None:
    switched_on(desk, live)
    desk.invalid = (Problem("syntax", "it ends too early", FILE, 1, remedy="close it"),)

    reply = await desk.stub.ApplyPolicies(edited())

    told = pb.Refusal(code="syntax", message="it ends too early", file=FILE, line=1, remedy="close it")
    assert reply == pb.ApplyPoliciesReply(refused=[told])
    assert (desk.recorded, (tmp_path / "policies").exists()) == ([], False)


async def test_policies_that_cannot_be_recorded_are_not_written(desk: Desk, live: Live, tmp_path: Path) -> None:
    switched_on(desk, live)
    desk.office.recorder.full = True

    assert (await desk.refused("ApplyPolicies", edited()))[0] is Code.FAILED_PRECONDITION
    assert not (tmp_path / "policies").exists()


async def _secret(desk: Desk) -> str:
    reply = await desk.stub.CreateToken(pb.CreateTokenRequest(agent="laptop", workloads=[str(REVIEWS)]))
    return parse_token(reply.token).secret


async def test_it_ends_when_told_to_and_says_so_first(desk: Desk) -> None:
    await desk.stub.Shutdown(pb.ShutdownRequest())

    assert desk.stopped == [True]
    assert [entry.detail for entry in desk.recorded] == [{"operation": "shutdown"}]


async def test_a_full_disk_keeps_nobody_from_ending_it(desk: Desk) -> None:
    desk.office.recorder.full = True

    await desk.stub.Shutdown(pb.ShutdownRequest())

    assert desk.stopped == [True]


# ---- Decide


async def test_a_request_is_decided_as_it_would_be_where_it_reaches_an_instance(desk: Desk, live: Live) -> None:
    desk.facts.connected = (ProxyStatus("reviews-v1", connected=True, types=(TypeStatus("listeners", "sent"),)),)
    request = pb.DecideRequest(instance="reviews-v1", request="edge GET http://reviews/", headers={"x-a": "b"})
    reply = await desk.stub.Decide(request)

    assert (reply.revision, reply.decision, reply.reasons) == (live.ruling.revision, "allow", ["read"])
    assert reply.time_us == int(NOW.timestamp()) * 1_000_000
    assert (reply.proxy.connected, [one.state for one in reply.proxy.types]) == (True, ["sent"])
    assert desk.recorded == []

    desk.facts.connected = ()
    reply = await desk.stub.Decide(pb.DecideRequest(instance="reviews-v1", request="edge PUT http://reviews:80/"))
    assert (reply.decision, reply.proxy.instance, reply.proxy.connected) == ("allow", "reviews-v1", False)


@pytest.mark.parametrize(
    ("instance", "request_", "words"),
    [
        ("reviews-v2", "edge GET http://reviews/", "no instance is called `reviews-v2`; did you mean `reviews-v1`?"),
        ("", "edge GET http://reviews/", "no instance is called ``; there are edge, reviews-v1"),
        ("edge", "edge GET http://reviews/", "`reviews` is not served by `edge`; requests to it reach `reviews-v1`"),
        ("reviews-v1", "nobody GET http://reviews/", "`nobody` is nobody in the mesh; there are anonymous, edge, "),
        ("reviews-v1", "edge GET", "`edge GET` is no request; write FROM METHOD URL, as in "),
        ("reviews-v1", "edge GET http://reviews:81/", "the service `reviews.default` has no port 81; it has 80"),
        ("reviews-v1", "edge GET http://reviews/a;x=1", "`/a;x=1`"),
        ("reviews-v1", f"edge GET http://reviews/{'a' * 20_000}", "`edge GET http://reviews/aaa"),
    ],
)
async def test_a_question_that_means_nothing_is_refused(desk: Desk, instance: str, request_: str, words: str) -> None:
    code, details = await desk.refused("Decide", pb.DecideRequest(instance=instance, request=request_))
    assert (code, details[: len(words)]) == (Code.INVALID_ARGUMENT, words)
    assert desk.recorded == []


# ---- Traces


async def test_traces_are_listed_and_shown_and_one_that_is_gone_is_said_to_be(desk: Desk) -> None:
    desk.window.add([GOOD])

    [one] = (await desk.stub.Traces(pb.TracesRequest())).traces
    assert (await desk.stub.Trace(pb.TraceRequest(id=one.id))).summary == one
    code, detail = await desk.refused("Trace", pb.TraceRequest(id="0" * 32))
    gone = f"no trace `{'0' * 32}` is in the window; it was not sampled, or had to make room"
    assert (code, detail) == (Code.NOT_FOUND, gone)


# ---- SetLogLevel


@pytest.mark.parametrize(
    ("asked", "spoken", "now"), [("debug", "debug", "debug"), ("error", "error", "error"), ("", None, "warning")]
)
async def test_what_is_logged_is_changed_and_on_record(desk: Desk, asked: str, spoken: str | None, now: str) -> None:
    reply = await desk.stub.SetLogLevel(pb.SetLogLevelRequest(level=asked))

    assert (reply.level, desk.spoken) == (now, [spoken])
    assert [(one.kind, one.detail) for one in desk.recorded] == [
        ("operation", {"operation": "log.level", "level": asked or "settings"})
    ]


async def test_an_agent_and_its_envoys_are_asked_apart_and_that_is_on_record(desk: Desk) -> None:
    made = await desk.stub.CreateToken(pb.CreateTokenRequest(agent="a1"))
    with desk.tokens.claim(parse_token(made.token).secret, NOW):
        pass
    for level, envoys in (("debug", False), ("trace", True), ("", False)):
        reply = await desk.stub.SetLogLevel(pb.SetLogLevelRequest(level=level, agent="a1", envoys=envoys))
        assert reply.level == level

    assert (desk.levels.of("a1"), desk.levels.of("a2"), desk.spoken) == (Asked(envoys="trace"), Asked(), [])
    assert desk.recorded[-1].detail == {"operation": "log.level", "level": "settings", "agent": "a1", "envoys": False}


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        ({"level": "trace", "agent": "a1"}, Code.INVALID_ARGUMENT, "`trace` is no level; known are debug, info,"),
        (
            {"level": "loud", "agent": "a1", "envoys": True},
            Code.INVALID_ARGUMENT,
            "`loud` is no level; known are",
        ),
        ({"level": "debug", "agent": "a2"}, Code.NOT_FOUND, "`a2` is no agent; none has joined"),
        ({"level": "debug", "envoys": True}, Code.NOT_FOUND, "`` is no agent; none has joined"),
    ],
)
async def test_nobody_else_is_asked_to_say_more(desk: Desk, asked: dict[str, Any], code: Any, said: str) -> None:
    found, detail = await desk.refused("SetLogLevel", pb.SetLogLevelRequest(**asked))

    assert (found, detail.startswith(said)) == (code, True)
    assert desk.recorded == []


@pytest.mark.parametrize(
    ("call", "request_"),
    [("SetLogLevel", pb.SetLogLevelRequest(level="debug")), ("RestartDeciders", pb.RestartDecidersRequest())],
)
async def test_what_cannot_be_recorded_is_not_done_and_is_no_certificates_matter(
    desk: Desk, call: str, request_: Any
) -> None:
    desk.office.recorder.full = True

    with capture_logs() as logged:
        assert await desk.refused(call, request_) == (Code.FAILED_PRECONDITION, "the disk is full")

    assert (desk.spoken, logged) == ([], [])


async def test_a_level_that_is_none_is_refused(desk: Desk) -> None:
    code, detail = await desk.refused("SetLogLevel", pb.SetLogLevelRequest(level="loud"))

    assert (code, detail) == (Code.INVALID_ARGUMENT, "`loud` is no level; known are debug, info, warning, error")
    assert (desk.spoken, desk.recorded) == ([], [])
