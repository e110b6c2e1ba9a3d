"""A folder's texts become a Declaration: every file parsed, every field checked, nothing cross-checked yet.

Law: a Declaration keeps the document of each thing, so that a fault found later has its file and line.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from policyd.errors import InvalidInput, Problem
from policyd.mesh.credentials import Credentials
from policyd.mesh.gateway_api.conditions import Status
from policyd.mesh.gateway_api.known import known
from policyd.mesh.gateway_api.translate import translate
from policyd.mesh.istio.common import Labels, Resource
from policyd.mesh.istio.kinds import ELSEWHERE, KINDS, LATER, key_of
from policyd.mesh.istio.workload_entry import Weight
from policyd.mesh.locality import check_locality
from policyd.mesh.machines import machines, services_inside
from policyd.mesh.matching import check_account_template, check_ip, check_path, check_range, check_variables
from policyd.mesh.model import CertificateForwarding
from policyd.mesh.protocols import Protocol, by_name, undeclared
from policyd.mesh.templates import in_groups, of_groups
from policyd.strict import NOTHING, Many, Model, Name, PortNumber, describe, parse
from policyd.yaml import Document, Path, load, load_one

WORKLOADS_FILE: Final = "workloads.yaml"
GROUPS_FILE: Final = "groups.yaml"
MESH_FOLDER: Final = "mesh/"
KEYS_FOLDER: Final = "jwks/"
MAX_PORTS: Final = 64  # of one workload
MAX_TRUSTED_PROXIES: Final = 32  # in a row, before one gateway

R = TypeVar("R", bound=Resource)
T = TypeVar("T", bound=tuple[Any, ...])
F = TypeVar("F", bound=Model)
S = TypeVar("S", bound=Resource)


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _as_command(value: Any) -> Any:
    """Split a command that is one text as a shell would, as Compose does."""
    try:
        return shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"`{value[:80]}` is no command: {str(error).lower()}; close the quote") from None


Address = Annotated[str, AfterValidator(check_ip)]
Range = Annotated[str, AfterValidator(check_range)]
Command = Annotated[Many[str], Field(min_length=1, max_length=1000), BeforeValidator(_as_command)]
Listens = Annotated[Many[PortNumber], Field(min_length=1, max_length=64), BeforeValidator(_as_list)]
Member = Annotated[str, Field(min_length=1, max_length=2048)]


class PortSpec(Model):
    """A port that an application serves: `port` is the Service's, its `protocol` that of its name unless given.

    The application listens on `appPort`, its peers reach its sidecar on `inboundPort`; both are picked unless given.
    """

    port: PortNumber
    name: Name | None = None
    protocol: Protocol | None = None
    app_port: PortNumber | None = None
    inbound_port: PortNumber | None = None

    @cached_property
    def speaks(self) -> Protocol:
        """What is decided on it."""
        return self.protocol or (by_name(self.name) or undeclared(self.port) if self.name else "http")

    @cached_property
    def called(self) -> str:
        """Its name, by which a Service may lead to it."""
        return self.name or self.speaks


class MetricsSpec(Model):
    """Where an application shows metrics for Prometheus: on its first port unless another one is given."""

    path: Annotated[str, AfterValidator(check_path)] = "/metrics"
    port: PortNumber | None = None


class WorkloadSpec(Model):
    """One instance to run, in Compose's words; without `command` it is started by someone else.

    `port` is the Service's, `ports` are they where there are several; the other ports are picked free unless given.
    Of the requests to several instances each gets its `weight`'s share (none given: 1). A `proxyless` one has no
    sidecar: its application speaks xDS by itself, as gRPC does, and its peers reach it on `inboundPort`.
    """

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["port"]}, {"required": ["ports"]}]})

    service: Name
    port: PortNumber | None = None
    protocol: Protocol | None = None
    ports: Annotated[Many[PortSpec], Field(max_length=MAX_PORTS)] = ()
    command: Command | None = None
    health: Annotated[str, AfterValidator(check_path)] | None = None
    labels: Labels = NOTHING
    environment: Annotated[Mapping[str, str], AfterValidator(check_variables)] = NOTHING
    workdir: Annotated[str, Field(min_length=1)] | None = None
    service_account: Name | None = None
    namespace: Name | None = None
    address: Address = "127.0.0.1"
    app_port: PortNumber | None = None
    inbound_port: PortNumber | None = None
    outbound_port: PortNumber | None = None
    locality: Annotated[str, AfterValidator(check_locality)] | None = None
    weight: Weight | None = None
    metrics: MetricsSpec | None = None
    proxyless: bool = False

    @model_validator(mode="after")
    def _one_form(self) -> WorkloadSpec:
        if (self.port is None) is not bool(self.ports):
            raise ValueError("give either `port` or `ports`" if self.ports else "`port` is missing; add it, or `ports`")
        of_one = {"protocol": self.protocol, "appPort": self.app_port, "inboundPort": self.inbound_port}
        if self.ports and (given := next((name for name, value in of_one.items() if value is not None), None)):
            raise ValueError(f"`{given}` is of a single `port`; write it into the entries of `ports`")
        names = [port.called for port in self.ports if len(self.ports) > 1]
        numbers = [port.port for port in self.ports]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two of `ports` are called `{twice}`; give each a `name` of its own")
        if again := next((number for number in numbers if numbers.count(number) > 1), None):
            raise ValueError(f"port {again} is in `ports` twice; remove one")
        return self

    @cached_property
    def serves(self) -> tuple[tuple[Path, PortSpec], ...]:
        """Its ports, each with the place of its fields in the spec."""
        if self.port is None:
            return tuple((("ports", at), port) for at, port in enumerate(self.ports))
        one = PortSpec(port=self.port, protocol=self.protocol, app_port=self.app_port, inbound_port=self.inbound_port)
        return (((), one),)

    @cached_property
    def given_ports(self) -> tuple[tuple[Path, int], ...]:
        """The ports of the machine that are given, each with the place of its field."""
        fields: list[tuple[Path, int | None]] = [(("outboundPort",), self.outbound_port)]
        for where, port in self.serves:
            fields += [((*where, "appPort"), port.app_port), ((*where, "inboundPort"), port.inbound_port)]
        return tuple((path, number) for path, number in fields if number is not None)

    @cached_property
    def shown(self) -> tuple[tuple[int, str, str], ...]:
        """What of its ports callers of its Service see."""
        return tuple((port.port, port.speaks, port.called) for _, port in self.serves)


class ProxyProtocolSpec(Model):
    """Each connection begins with a PROXY header, of version 1 or 2, and comes from one of these ranges."""

    from_: Annotated[Many[Range], Field(alias="from", min_length=1, max_length=64)]


def _check_forwarding(given: Any) -> Any:
    if given == "ALWAYS_FORWARD_ONLY":
        raise ValueError("anybody could claim a certificate that nobody has seen; write `APPEND_FORWARD`")
    return given


class TopologySpec(Model):
    """What stands before a gateway: so many proxies that add to `x-forwarded-for`, or one that says it in first bytes.

    What a gateway tells of clients' certificates (`x-forwarded-client-cert`) is nothing, unless it says otherwise here.
    """

    num_trusted_proxies: Annotated[int, Field(ge=0, le=MAX_TRUSTED_PROXIES)] = 0
    forward_client_cert_details: Annotated[CertificateForwarding, BeforeValidator(_check_forwarding)] = "UNDEFINED"
    proxy_protocol: ProxyProtocolSpec | None = None


class GatewayInstanceSpec(Model):
    """An Envoy at the edge that opens the ports `listen`; it serves the Service of its own name.

    With `http3` its encrypted servers speak HTTP/3 too, on the UDP port of the same number.
    """

    listen: Listens
    labels: Labels = NOTHING
    service_account: Name | None = None
    namespace: Name | None = None
    address: Address = "127.0.0.1"
    locality: Annotated[str, AfterValidator(check_locality)] | None = None
    gateway_topology: TopologySpec | None = None
    http3: bool = False


class ServiceAccountSpec(Model):
    """Labels of an identity; policies see them as the Workload's tags."""

    labels: Labels = NOTHING


class Defaults(Model):
    """What holds where an instance does not say otherwise; `{service}` stands for its service's name."""

    namespace: Name = "default"
    service_account: Annotated[str, AfterValidator(check_account_template)] = "{service}"
    gateway_topology: TopologySpec = TopologySpec()


class WorkloadsFile(Model):
    """workloads.yaml; service accounts by `<name>` or `<name>.<namespace>`."""

    workloads: Mapping[Name, WorkloadSpec] = NOTHING
    gateways: Mapping[Name, GatewayInstanceSpec] = NOTHING
    service_accounts: Mapping[str, ServiceAccountSpec] = NOTHING
    defaults: Defaults = Defaults()


class GroupSpec(Model):
    """Members, as people write them: `<service account>[.<namespace>]` or SPIFFE ID, `<service>[.<namespace>]`."""

    workloads: Many[Member] = ()
    users: Many[Member] = ()
    hosts: Many[Member] = ()
    services: Many[Member] = ()
    operators: Many[Member] = ()
    groups: Many[Member] = ()


class GroupsFile(Model):
    """groups.yaml."""

    groups: Mapping[Name, GroupSpec] = NOTHING


@dataclass(frozen=True, slots=True)
class Declared(Generic[R]):
    """A resource and the document that it stands in; its namespace is filled in."""

    resource: R
    document: Document

    def problem(self, code: str, message: str, path: Path = (), remedy: str = "") -> Problem:
        """Return a Problem at `path` of the resource."""
        return self.document.problem(code, message, path, remedy)

    def standing_for(self, resource: S) -> Declared[S]:
        """Return another resource that this one means; it stands at the same place."""
        return Declared(resource, self.document)

    @property
    def stands(self) -> bool:
        """Whether it is what the document says; else it only follows from that."""
        return key_of(self.document.value) == self.resource.kind_key


@dataclass(frozen=True, slots=True)
class Read:
    """What a file was found to say: all of it follows from its text and from the namespace of what has none."""

    text: str
    namespace: str
    found: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Declaration:
    """Everything declared, file by file; `workloads_document` and `groups_document` tell lines.

    `key_sets` are texts of key sets by their file in the folder, or by the URI that they were fetched from. `read` is
    what each file says, for the next Declaration. `statuses` are what is told of resources of the Gateway API, by kind
    and id.
    """

    workloads: WorkloadsFile
    workloads_document: Document
    groups: GroupsFile
    groups_document: Document
    resources: tuple[Declared[Any], ...] = ()
    key_sets: Mapping[str, str] = field(default_factory=dict)
    read: Mapping[str, Read] = field(default_factory=dict, repr=False, compare=False)
    statuses: Mapping[tuple[str, str], Status] = field(default_factory=dict, repr=False, compare=False)

    def of(self, kind: type[R]) -> tuple[Declared[R], ...]:
        """The resources of one kind, in the order of files and documents."""
        return tuple(found for found in self.resources if isinstance(found.resource, kind))

    def with_status(self, declared: Declared[Any], known: Callable[[Status], Status]) -> dict[str, Any]:
        """What a resource's document says, and what is told of it, as far as it is known to be in force."""
        status = self.statuses.get((declared.resource.kind_key, declared.resource.id))
        value: dict[str, Any] = declared.document.value
        return value if status is None else {**value, "status": known(status).shown()}


def declare(
    files: Mapping[str, str], before: Declaration | None = None, credentials: Credentials | None = None
) -> Declaration:
    """Parse the declared files (path in the folder, or URI of a key set -> text); others are passed over.

    A file that says the same as in `before` is not parsed again. `credentials` are the files of certificates, None
    where they are not at hand. Raises InvalidInput with every problem of every file.
    """
    problems: list[Problem] = []
    reader = _Reader(before.read if before else {}, problems)
    workloads_document, workloads = reader.one(files, WORKLOADS_FILE, WorkloadsFile)
    groups_document, groups = reader.one(files, GROUPS_FILE, GroupsFile)
    resources: list[Declared[Any]] = []
    for path in sorted(files):
        if path.startswith(MESH_FOLDER) and path.endswith((".yaml", ".yml")):
            resources += reader.resources(files[path], path, workloads.defaults.namespace)
    if not problems:
        resources = [*in_groups(resources)]
        resources += list(services_inside(resources, problems))
        written = {**workloads.workloads, **workloads.gateways}
        more = machines(resources, written, WorkloadSpec, problems)
        own = of_groups(resources, workloads.workloads, workloads.defaults.namespace)
        workloads = workloads.model_copy(update={"workloads": {**own, **more}})
    if problems:
        raise InvalidInput(problems)
    translated = translate(resources, known(workloads, resources), credentials)
    return Declaration(
        workloads,
        workloads_document,
        groups,
        groups_document,
        (*resources, *translated.resources),
        {path: text for path, text in files.items() if path.startswith(KEYS_FOLDER) or "://" in path},
        reader.read,
        translated.statuses,
    )


class _Reader:
    """Reads files, or takes what was read before; adds the problems of all to one list."""

    def __init__(self, before: Mapping[str, Read], problems: list[Problem]) -> None:
        self.read: dict[str, Read] = {}
        self._before = before
        self._problems = problems

    def one(self, files: Mapping[str, str], path: str, model: type[F]) -> tuple[Document, F]:
        """A file of one document, as its model."""

        def make(text: str, problems: list[Problem]) -> tuple[Document, F]:
            document = _one({path: text}, path, problems)
            return document, parse(model, document, problems) or model()

        return self._remember(path, files.get(path, ""), "", make)

    def resources(self, text: str, path: str, namespace: str) -> tuple[Declared[Any], ...]:
        """A file of resources."""
        return self._remember(path, text, namespace, lambda text, new: tuple(_resources(text, path, namespace, new)))

    def _remember(self, path: str, text: str, namespace: str, make: Callable[[str, list[Problem]], T]) -> T:
        known = self._before.get(path)
        if known is not None and known.text == text and known.namespace == namespace:
            self.read[path] = known
            found: T = known.found  # type: ignore[assignment]  # by the same maker of this path
            return found
        problems: list[Problem] = []
        found = make(text, problems)
        self._problems += problems
        if not problems:
            self.read[path] = Read(text, namespace, found)
        return found


def _one(files: Mapping[str, str], path: str, problems: list[Problem]) -> Document:
    try:
        return load_one(files.get(path, ""), path)
    except InvalidInput as error:
        problems += error.problems
        return Document(path, {})


def _resources(text: str, path: str, namespace: str, problems: list[Problem]) -> list[Declared[Any]]:
    try:
        documents = load(text, path)
    except InvalidInput as error:
        problems += error.problems
        return []
    found = (_resource(document, namespace, problems) for document in documents if document.value is not None)
    return [declared for declared in found if declared is not None]


def _resource(document: Document, namespace: str, problems: list[Problem]) -> Declared[Any] | None:
    if not isinstance(document.value, dict):
        problems.append(document.problem("kind", f"a resource is a mapping, not {describe(document.value)}"))
        return None
    missing = [field for field in ("apiVersion", "kind") if field not in document.value]
    if missing:
        problems += [document.problem("kind", f"`{field}` is missing", remedy="add it") for field in missing]
        return None
    kind, key = document.value["kind"], key_of(document.value)
    model = KINDS.get(key) if key is not None else None
    if key is None or model is None:
        shown = f"the kind `{kind[:80]}` is not supported" if isinstance(kind, str) else "`kind` must be text"
        remedy = ELSEWHERE.get(str(kind), "").replace("FILE", document.file)
        remedy = remedy or f"supported are {', '.join(sorted(KINDS))}"
        problems.append(document.problem("kind", shown, ("kind",), remedy))
        return None
    resource = parse(model, document, problems, LATER[key])
    return Declared(resource.within(namespace), document) if resource is not None else None
