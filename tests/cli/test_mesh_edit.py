"""`policyd mesh apply`, `get` and `delete`: in a folder, and through a server."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import yaml

from policyd._pb import admin_pb2 as pb
from policyd.cli.exits import Exit
from tests.cli.conftest import Said
from tests.fakes.admin import FakeAdmin

APPLIED = """\
DestinationRule default/productpage created in mesh/destinationrule-productpage.yaml
DestinationRule default/details created in mesh/destinationrule-details.yaml
DestinationRule default/ratings created in mesh/destinationrule-ratings.yaml
DestinationRule default/reviews created in mesh/destinationrule-reviews.yaml
"""
VALUE = '{"kind": "Service"}'
TABLE = """\
KIND            NAMESPACE  NAME      WHERE
VirtualService  default    bookinfo  mesh/gateway.yaml:9
"""
DANGLING = (
    "mesh/virtualservice-reviews.yaml:8: callers in `default` know no subset `v2` of the service `reviews.default`; "
    "declare it in a DestinationRule of that host\nerror: 1 problem found\n"
)


@pytest.fixture
def bookinfo(root: Path, tmp_path: Path) -> Path:
    """The declared files of the sample."""
    target = tmp_path / "bookinfo"
    skip = shutil.ignore_patterns(".policyd", "bookinfo", "__pycache__")
    shutil.copytree(root / "examples" / "bookinfo", target, ignore=skip)
    return target


def files(folder: Path) -> set[str]:
    return {one.name for one in (folder / "mesh").iterdir()}


def test_resources_are_put_in_shown_and_taken_out(policyd: Callable[..., Said], bookinfo: Path) -> None:
    tasks, at = bookinfo / "tasks", ("--dir", bookinfo)

    assert policyd("mesh", "apply", "-f", tasks / "subsets.yaml", *at) == Said(Exit.OK, APPLIED, "")
    again = policyd("mesh", "apply", "-f", tasks / "subsets.yaml", *at, "--json").value
    assert {one["what"] for one in again["changes"]} == {"unchanged"}
    assert policyd("mesh", "apply", "-f", tasks / "reviews-v2.yaml", *at).code == Exit.OK
    told = "VirtualService default/reviews configured in mesh/virtualservice-reviews.yaml\n"
    assert policyd("mesh", "apply", "-f", tasks / "reviews-v1.yaml", *at) == Said(Exit.OK, told, "")
    assert policyd("mesh", "get", "vs", "bookinfo", *at) == Said(Exit.OK, TABLE, "")
    shown = yaml.safe_load(policyd("mesh", "get", "vs", "reviews", "-o", "yaml", *at).out)
    assert shown == yaml.safe_load((tasks / "reviews-v1.yaml").read_text())
    as_json = policyd("mesh", "get", "vs", "default/reviews", "--json", *at).value
    assert as_json == {"resources": [shown]}
    deleted = "VirtualService default/reviews deleted in mesh/virtualservice-reviews.yaml\n"
    assert policyd("mesh", "delete", "vs", "reviews", *at) == Said(Exit.OK, deleted, "")
    assert policyd("check", bookinfo).code == Exit.OK


def test_what_would_be_refused_is_not_written(policyd: Callable[..., Said], bookinfo: Path) -> None:
    before = files(bookinfo)

    said = policyd("mesh", "apply", "-f", bookinfo / "tasks" / "reviews-v2.yaml", "--dir", bookinfo)

    assert said == Said(Exit.INVALID, "", DANGLING)
    assert files(bookinfo) == before


def test_what_others_lead_to_is_not_taken_out(policyd: Callable[..., Said], bookinfo: Path) -> None:
    said = policyd("mesh", "delete", "gateway", "bookinfo-gateway", "--dir", bookinfo)

    assert said.code == Exit.INVALID
    assert "no Gateway is called `bookinfo-gateway`" in said.err
    assert "kind: Gateway" in (bookinfo / "mesh" / "gateway.yaml").read_text()


def test_a_dry_run_writes_nothing(policyd: Callable[..., Said], bookinfo: Path) -> None:
    before = files(bookinfo)

    said = policyd("mesh", "apply", "-f", bookinfo / "tasks" / "subsets.yaml", "--dir", bookinfo, "--dry-run")

    assert said.out == APPLIED.replace("yaml\n", "yaml (dry run)\n")
    assert files(bookinfo) == before


def test_a_folder_and_standard_input_are_read(
    policyd: Callable[..., Said], bookinfo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = tmp_path / "more"
    more.mkdir()
    for name in ("subsets", "reviews-v1"):
        shutil.copy(bookinfo / "tasks" / f"{name}.yaml", more)
    assert policyd("mesh", "apply", "-f", more, "--dir", bookinfo).out.count("created") == 5

    monkeypatch.setattr(sys, "stdin", io.StringIO((bookinfo / "tasks" / "reviews-v2.yaml").read_text()))
    assert "reviews configured" in policyd("mesh", "apply", "-f", "-", "--dir", bookinfo).out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("apply", "-f", "nowhere.yaml"), Exit.USAGE, "error: `nowhere.yaml` cannot be read: no such file"),
        (("delete", "vs", "nobody"), Exit.INVALID, "error: there is no VirtualService default/nobody\n"),
        (("delete", "pod", "a"), Exit.INVALID, "error: `pod` is no kind of a mesh folder\n  known are "),
        (("get", "vs", "nobody"), Exit.INVALID, "error: there is no vs `nobody`\n"),
        (("get", "pods"), Exit.INVALID, "error: `pods` is no kind of a mesh folder\n  known are "),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    policyd: Callable[..., Said], bookinfo: Path, words: tuple[str, ...], code: Exit, message: str
) -> None:
    said = policyd("mesh", *words, "--dir", bookinfo)

    assert (said.code, said.out) == (code, "")
    assert said.err.startswith(message)


def test_a_server_makes_the_change_where_one_runs(
    policyd: Callable[..., Said], folder: Path, fake: FakeAdmin, tmp_path: Path
) -> None:
    text = tmp_path / "a.yaml"
    text.write_text("kind: Service\n")
    change = pb.MeshChange(kind="Service", namespace="default", name="a", file="mesh/a.yaml", what="changed")
    fake.replies["ChangeMesh"] = pb.ChangeMeshReply(changes=[change])

    told = "Service default/a configured in mesh/a.yaml\n"
    assert policyd("mesh", "apply", "-f", text, "--dir", folder) == Said(Exit.OK, told, "")
    assert fake.requests[-1] == ("ChangeMesh", pb.ChangeMeshRequest(apply="kind: Service\n"))
    policyd("mesh", "delete", "svc", "a", "--dir", folder, "--dry-run")
    remove = [pb.ResourceName(kind="svc", name="a")]
    assert fake.requests[-1] == ("ChangeMesh", pb.ChangeMeshRequest(remove=remove, dry_run=True))


def test_a_server_says_what_is_wrong(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    wrong = pb.Refusal(code="reference", message="it leads nowhere", file="mesh/a.yaml", line=3, remedy="correct it")
    fake.replies["ChangeMesh"] = pb.ChangeMeshReply(refused=[wrong])

    told = "mesh/a.yaml:3: it leads nowhere; correct it\nerror: 1 problem found\n"
    assert policyd("mesh", "delete", "svc", "a", "--dir", folder) == Said(Exit.INVALID, "", told)


def test_a_server_shows_what_is_in_force(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    one = pb.MeshResource(kind="Service", namespace="shop", name="a", file="mesh/a.yaml", line=2, json=VALUE)
    fake.replies["Resources"] = pb.ResourcesReply(resources=[one])

    assert "Service  shop       a     mesh/a.yaml:2" in policyd("mesh", "get", "svc", "--dir", folder).out
    assert policyd("mesh", "get", "-o", "json", "--dir", folder).value == {"resources": [{"kind": "Service"}]}
    assert fake.requests[1] == ("Resources", pb.ResourcesRequest(kind="Service"))


def test_what_operators_policies_forbid_is_an_error(
    policyd: Callable[..., Said], folder: Path, fake: FakeAdmin
) -> None:
    fake.failures["ChangeMesh"] = (grpc.StatusCode.PERMISSION_DENIED, "the operators' policies forbid it: `freeze`")

    said = policyd("mesh", "delete", "svc", "a", "--dir", folder)

    assert said == Said(Exit.ERROR, "", "error: the operators' policies forbid it: `freeze`\n")


GATEWAY_API = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: bookinfo}
spec:
  gatewayClassName: policyd
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bookinfo}
spec:
  parentRefs: [{name: bookinfo}]
  rules: [{backendRefs: [{name: productpag, port: 9080}]}]
"""
CONDITIONS = """\
KIND       NAMESPACE  NAME      WHERE
HTTPRoute  default    bookinfo  mesh/httproute-bookinfo.yaml:2

RESOURCE                    AT                CONDITION     STATUS  REASON           MESSAGE
HTTPRoute default/bookinfo  Gateway bookinfo  Accepted      True    Accepted         -
HTTPRoute default/bookinfo  Gateway bookinfo  ResolvedRefs  False   BackendNotFound  \
`productpag.default` is no service of the mesh; did you mean `productpage.default`?
"""


def test_a_resource_of_the_gateway_api_is_shown_with_its_conditions(
    policyd: Callable[..., Said], bookinfo: Path, tmp_path: Path
) -> None:
    at = ("--dir", bookinfo)
    given = tmp_path / "given.yaml"
    given.write_text(GATEWAY_API)

    applied = policyd("mesh", "apply", "-f", given, *at)

    told = "Gateway.gateway.networking.k8s.io default/bookinfo created in mesh/gateway-bookinfo.yaml\n"
    assert applied == Said(Exit.OK, told + "HTTPRoute default/bookinfo created in mesh/httproute-bookinfo.yaml\n", "")
    assert policyd("mesh", "get", "httproutes", *at) == Said(Exit.OK, CONDITIONS, "")
    [gateway] = policyd("mesh", "get", "gtw", "--json", *at).value["resources"]
    assert [one["reason"] for one in gateway["status"]["conditions"]] == ["Accepted", "Pending"]  # nobody runs
    assert "gtw" not in policyd("mesh", "get", "gateway", *at).out  # which are Istio's
    assert policyd("mesh", "delete", "gtw", "bookinfo", *at).code == Exit.OK
    assert "NoMatchingParent" in policyd("mesh", "get", "httproute", *at).out
