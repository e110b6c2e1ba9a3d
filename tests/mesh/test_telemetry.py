"""Telemetries: the wider level first, the narrower one has the word, and what could not hold is refused."""

from __future__ import annotations

from typing import Any

import pytest

from policyd.errors import InvalidInput
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.istio.telemetry import CustomTag, EnvironmentTag, LiteralTag
from policyd.mesh.placement import assumed
from policyd.mesh.telemetry import Count, Providers, Said, Spans, said_of
from policyd.names import MESH_CLOSED, MESH_DURATION, MESH_REQUESTS
from tests.mesh.sample import GOOD, meshed, problems

MESH, SPACE = "istio-system", "default"
API = "selector: {matchLabels: {app: api}}"
V2 = "selector: {matchLabels: {version: v2}}"


def telemetry(name: str, namespace: str, spec: str) -> str:
    return f"""\
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{{spec}}}
"""


def folder(*documents: str) -> dict[str, str]:
    return {**GOOD, "mesh/telemetry.yaml": "".join(documents)}


def said(documents: list[str], instance: str = "api-v2", side: Any = "SERVER", *, is_logged: bool = False) -> Said:
    mesh = meshed(folder(*documents))
    return said_of(mesh.telemetries, mesh.instances[instance], side, is_logged=is_logged)


def counts(*overrides: str) -> str:
    return f"metrics: [{{overrides: [{', '.join(overrides)}]}}]"


OFF = "{match: {metric: REQUEST_COUNT}, disabled: true}"
ON = "{match: {metric: REQUEST_COUNT}, disabled: false}"
HOST = "{match: {metric: REQUEST_COUNT}, tagOverrides: {host: {value: request.host}}}"
NO_HOST = "{match: {metric: REQUEST_COUNT}, tagOverrides: {host: {operation: REMOVE}}}"
ASKING = "{match: {metric: REQUEST_COUNT, mode: CLIENT}, disabled: true}"


@pytest.mark.parametrize(
    ("documents", "found"),
    [
        ([telemetry("m", MESH, counts(OFF))], {MESH_REQUESTS: Count(disabled=True)}),
        ([telemetry("m", MESH, counts(OFF)), telemetry("n", SPACE, counts(ON))], {}),
        ([telemetry("n", SPACE, counts(ON)), telemetry("w", SPACE, f"{API}, {counts(OFF)}")],
         {MESH_REQUESTS: Count(disabled=True)}),
        # label by label, the narrower word last
        ([telemetry("m", MESH, counts(HOST)), telemetry("n", SPACE, counts(OFF))],
         {MESH_REQUESTS: Count(True, {"host": "request.host"})}),
        ([telemetry("w", SPACE, f"{V2}, {counts(NO_HOST)}"), telemetry("m", MESH, counts(HOST))],
         {MESH_REQUESTS: Count(False, {"host": None})}),
        # the other side, and other workloads
        ([telemetry("m", MESH, counts(ASKING))], {}),
        ([telemetry("w", SPACE, f"selector: {{matchLabels: {{version: v1}}}}, {counts(OFF)}")], {}),
    ],
)  # fmt: skip
def test_metrics_are_merged_label_by_label(documents: list[str], found: dict[str, Count]) -> None:
    assert said(documents) == Said(found)


def test_an_override_without_a_metric_is_for_all_of_them() -> None:
    found = said(
        [telemetry("m", MESH, counts("{disabled: true}", "{match: {metric: REQUEST_DURATION}, disabled: false}"))]
    )

    assert (found.counts[MESH_REQUESTS], found.counts[MESH_CLOSED]) == (Count(disabled=True),) * 2
    assert (len(found.counts), MESH_DURATION in found.counts) == (9, False)


TEAM = "customTags: {team: {literal: {value: a}}}"
CREW = "customTags: {crew: {literal: {value: b}}}"


@pytest.mark.parametrize(
    ("documents", "found"),
    [
        ([telemetry("m", MESH, "tracing: [{randomSamplingPercentage: 10}]")], Spans(percent=10)),
        ([telemetry("m", MESH, "tracing: [{randomSamplingPercentage: 10}]"),
          telemetry("n", SPACE, "tracing: [{disableSpanReporting: true}]")], Spans(percent=10, disabled=True)),
        ([telemetry("n", SPACE, "tracing: [{disableSpanReporting: true}]"),
          telemetry("w", SPACE, f"{API}, tracing: [{{disableSpanReporting: false, randomSamplingPercentage: 0}}]")],
         Spans(percent=0)),
        # tags as a whole
        ([telemetry("m", MESH, f"tracing: [{{{TEAM}}}]"), telemetry("n", SPACE, f"tracing: [{{{CREW}}}]")],
         Spans(tags={"crew": CustomTag(literal=LiteralTag(value="b"))})),
        ([telemetry("m", MESH, "tracing: [{providers: [{name: policyd}], enableIstioTags: false}]"),
          telemetry("n", SPACE, "tracing: [{disableContextPropagation: true}]")],
         Spans(provider="policyd", istio_tags=False, propagates=False)),
        ([telemetry("m", MESH, "tracing: [{match: {mode: CLIENT}, randomSamplingPercentage: 10}]")], Spans()),
        ([telemetry("m", MESH, "tracing: [{useRequestIdForTraceSampling: true}]"),
          telemetry("n", SPACE, "tracing: [{randomSamplingPercentage: 5}]")], Spans(percent=5, by_request_id=True)),
        ([telemetry("m", MESH, "tracing: [{useRequestIdForTraceSampling: true}]"),
          telemetry("n", SPACE, "tracing: [{useRequestIdForTraceSampling: false}]")], Spans(by_request_id=False)),
        ([telemetry("m", MESH, "tracing: [{customTags: {zone: {environment: {name: ZONE, defaultValue: none}}}}]")],
         Spans(tags={"zone": CustomTag(environment=EnvironmentTag(name="ZONE", default_value="none"))})),
    ],
)  # fmt: skip
def test_of_spans_each_setting_is_merged_by_itself(documents: list[str], found: Spans) -> None:
    assert said(documents) == Said(spans=found)


def logs(*entries: str) -> str:
    return f"accessLogging: [{', '.join(entries)}]"


ERRORS = "{providers: [{name: envoy}], filter: {expression: response.code >= 400}}"


@pytest.mark.parametrize(
    ("documents", "is_logged", "found"),
    [
        ([], True, None),
        ([telemetry("m", MESH, counts(OFF))], True, None),
        ([telemetry("m", MESH, logs("{providers: [{name: envoy}]}"))], False, {"envoy": ""}),
        ([telemetry("m", MESH, logs(ERRORS))], False, {"envoy": "response.code >= 400"}),
        # without a name it is about those that there are
        ([telemetry("m", MESH, logs("{filter: {expression: connection.mtls}}"))], True, {"envoy": "connection.mtls"}),
        ([telemetry("m", MESH, logs("{filter: {expression: connection.mtls}}"))], False, {}),
        ([telemetry("m", MESH, logs("{disabled: true}"))], True, {}),
        ([telemetry("m", MESH, logs(ERRORS)), telemetry("n", SPACE, logs("{disabled: true}"))], False, {}),
        ([telemetry("m", MESH, logs(ERRORS)), telemetry("w", SPACE, f"{API}, {logs('{}')}")],
         False, {"envoy": "response.code >= 400"}),
        ([telemetry("m", MESH, logs(ERRORS)),
          telemetry("n", SPACE, logs("{filter: {expression: response.code >= 500}}"))],
         False, {"envoy": "response.code >= 500"}),
        # the providers of the narrower level, and none besides
        ([telemetry("m", MESH, logs(ERRORS)), telemetry("n", SPACE, logs("{providers: [{name: other}]}"))],
         False, {"other": ""}),
        ([telemetry("m", MESH, logs("{providers: [{name: a}]}", "{providers: [{name: b}]}")),
          telemetry("n", SPACE, logs("{providers: [{name: a}], disabled: true}"))], False, {}),
        ([telemetry("m", MESH, logs("{match: {mode: CLIENT}, providers: [{name: envoy}]}"))], False, {}),
    ],
)  # fmt: skip
def test_of_access_logs_the_narrowest_level_names_the_providers(
    documents: list[str], is_logged: bool, found: dict[str, str] | None
) -> None:
    assert said(documents, is_logged=is_logged).logs == found


def test_a_gateway_asks() -> None:
    documents = [telemetry("m", MESH, counts(ASKING))]

    assert said(documents, "edge", "CLIENT").counts == {MESH_REQUESTS: Count(disabled=True)}
    assert said(documents, "edge", "SERVER").counts == {}


ISTIO = "networking.istio.io"
K8S = "gateway.networking.k8s.io"
ONE_API = "targetRef: {kind: Service, name: api}"
TO_API = "targetRefs: [{kind: Service, name: api}]"
TO_EDGE = f"targetRefs: [{{group: {K8S}, kind: Gateway, name: edge}}]"


@pytest.mark.parametrize(
    ("documents", "instance", "disabled"),
    [
        ([telemetry("t", SPACE, f"{TO_API}, {counts(OFF)}")], "api-v1", True),
        ([telemetry("t", SPACE, f"{TO_API}, {counts(OFF)}")], "web-v1", False),
        ([telemetry("t", SPACE, f"{ONE_API}, {counts(OFF)}")], "api-v1", True),
        ([telemetry("t", SPACE, f"{ONE_API}, {counts(OFF)}")], "web-v1", False),
        ([telemetry("t", SPACE, f"{TO_EDGE}, {counts(OFF)}")], "edge", True),
        ([telemetry("t", SPACE, f"{TO_EDGE}, {counts(OFF)}")], "api-v1", False),
        # it is a workload's, and has the last word
        ([telemetry("m", SPACE, counts(OFF)), telemetry("t", SPACE, f"{TO_API}, {counts(ON)}")], "api-v1", False),
    ],
)
def test_targets_are_the_instances_of_a_service_or_a_gateway(
    documents: list[str], instance: str, disabled: bool
) -> None:
    found = said(documents, instance, "CLIENT").counts
    assert found.get(MESH_REQUESTS, Count()).disabled is disabled


NOBODY = "compare its namespace (`istio-system` is all of them) and its labels with workloads.yaml"


@pytest.mark.parametrize(
    ("documents", "problem"),
    [
        ([telemetry("n", "far", counts(OFF))], f"4: the Telemetry `far/n` holds for no instance; {NOBODY}"),
        # as in Istio, a selector is of its own namespace
        ([telemetry("n", MESH, f"{API}, {counts(OFF)}")],
         f"5: the Telemetry `istio-system/n` holds for no instance; {NOBODY}"),
        ([telemetry("a", SPACE, counts(OFF)), telemetry("b", SPACE, counts(ON))],
         "9: `edge` has a Telemetry for its namespace already, `default/a`; make one of both"),
        ([telemetry("a", SPACE, f"{API}, {counts(OFF)}"), telemetry("b", SPACE, f"{V2}, {counts(OFF)}")],
         "9: `api-v2` has a Telemetry for its workload already, `default/a`; make one of both"),
        ([telemetry("a", SPACE, "")], "5: `spec`: it says nothing; add `metrics`, `tracing` or `accessLogging`, or "
         "remove it"),
        ([telemetry("a", SPACE, f"targetRef: {{kind: Service, name: apj}}, {counts(OFF)}")],
         "5: there is no Service `apj.default` with instances of the mesh; name one that workloads.yaml or a gateway "
         "is"),
        ([telemetry("a", SPACE, f"{ONE_API}, {TO_API}, {counts(OFF)}")],
         "5: `spec`: both `targetRef` and `targetRefs`; keep the list"),
        ([telemetry("a", SPACE, f"{API}, {ONE_API}, {counts(OFF)}")],
         "5: `spec`: both `selector` and `targetRef`; keep one"),
        ([telemetry("a", SPACE, f"targetRefs: [{{group: {ISTIO}, kind: ServiceEntry, name: a}}], {counts(OFF)}")],
         "5: `spec.targetRefs[0].kind`: a ServiceEntry is no target here; a proxy counts all that leaves it in one "
         "way; select the callers by `selector`"),
        ([telemetry("a", MESH, f"targetRefs: [{{group: {K8S}, kind: GatewayClass, name: policyd}}], {counts(OFF)}")],
         "5: `spec.targetRefs[0].kind`: a GatewayClass is no target here; name the Gateways, or write a Telemetry in "
         "the root namespace with the mode CLIENT"),
        ([telemetry("a", SPACE, f"targetRefs: [{{group: {ISTIO}, kind: Service, name: api}}], {counts(OFF)}")],
         f"5: `spec.targetRefs[0]`: a Service is of the group `core`, a Gateway of `{K8S}`; write the one that is "
         "meant"),
        ([telemetry("a", SPACE, f"targetRefs: [{{kind: Service, name: apj}}], {counts(OFF)}")],
         "5: there is no Service `apj.default` with instances of the mesh; name one that workloads.yaml or a gateway "
         "is"),
        ([telemetry("a", SPACE, f"targetRefs: [{{group: {K8S}, kind: Gateway, name: api}}], {counts(OFF)}")],
         "5: there is no Gateway `api.default` with instances of the mesh; name one that workloads.yaml or a gateway "
         "is"),
        ([telemetry("a", SPACE, f"targetRefs: [{{kind: Service, name: api, namespace: far}}], {counts(OFF)}")],
         "5: a target is in the Telemetry's own namespace; remove `namespace`"),
        ([telemetry("a", SPACE, f"targetRefs: [{{kind: Gateway, name: edge}}], {counts(OFF)}")],
         f"5: `spec.targetRefs[0]`: a Service is of the group `core`, a Gateway of `{K8S}`; write the one that is "
         "meant"),
        ([telemetry("a", SPACE, f"{API}, targetRefs: [{{kind: Service, name: api}}], {counts(OFF)}")],
         "5: `spec`: both `selector` and `targetRefs`; keep one"),
        ([telemetry("a", SPACE, f"{API}, {counts(OFF)}"), telemetry("b", SPACE, f"{TO_API}, {counts(OFF)}")],
         "9: `api-v1` has a Telemetry for its workload already, `default/a`; make one of both"),
        ([telemetry("a", SPACE, counts("{match: {metric: GRPC_REQUEST_MESSAGES}, disabled: true}"))],
         "5: `spec`: Envoy counts messages both ways or not at all; say the same of GRPC_REQUEST_MESSAGES and "
         "GRPC_RESPONSE_MESSAGES"),
        ([telemetry("a", SPACE, counts("{match: {metric: GRPC_REQUEST_MESSAGES}, tagOverrides: {a: {value: '1'}}}"))],
         "5: `spec.metrics[0].overrides[0]`: Envoy counts messages by their cluster alone; `GRPC_REQUEST_MESSAGES` "
         "takes `disabled` only"),
        ([telemetry("a", SPACE, "metrics: [{reportingInterval: 5s}]")],
         "5: field `reportingInterval` of Telemetry is not supported in `spec.metrics[0]`; while a connection is open "
         "Envoy knows only what has passed in all, which would count twice; its bytes are counted when it ends"),
        ([telemetry("a", SPACE, counts("{match: {customMetric: x}}"))],
         "5: field `customMetric` of Telemetry is not supported in `spec.metrics[0].overrides[0].match`; only Istio's "
         "own metrics are counted; name one by `metric`"),
        ([telemetry("a", SPACE, counts("{tagOverrides: {host: {}}}"))],
         "5: `spec.metrics[0].overrides[0].tagOverrides.host`: `value` goes with UPSERT, and with nothing else"),
        ([telemetry("a", SPACE, counts("{tagOverrides: {host: {value: request.hots}}}"))],
         "5: `spec.metrics[0].overrides[0].tagOverrides.host.value`: `request.hots` is no attribute of a request; did "
         "you mean `host`?"),
        ([telemetry("a", SPACE, counts("{tagOverrides: {cookie: {value: request.headers.cookie}}}"))],
         "5: `spec.metrics[0].overrides[0].tagOverrides.cookie.value`: `request.headers['cookie']` is a credential, "
         "which no label shows"),
        ([telemetry("a", SPACE, counts("{tagOverrides: {le: {operation: REMOVE}}}"))],
         "5: `spec.metrics[0].overrides[0].tagOverrides.le`: the label `le` is not for Telemetry; use another name"),
        ([telemetry("a", SPACE, counts("{tagOverrides: {remote: {operation: REMOVE}}}"))],
         "5: `spec.metrics[0].overrides[0].tagOverrides.remote`: the label `remote` is not for Telemetry; use another "
         "name"),
        ([telemetry("a", SPACE, counts("{tagOverrides: {a-b: {operation: REMOVE}}}"))],
         "5: `spec.metrics[0].overrides[0].tagOverrides.a-b`: `a-b` is no label of a metric; write letters, digits and "
         "`_`, as in `request_host`"),
        ([telemetry("a", SPACE, logs("{filter: {expression: response.code >=}}"))],
         "5: `spec.accessLogging[0].filter.expression`: the expression ends, and a value is expected"),
        ([telemetry("a", SPACE, "tracing: [{customTags: {a: {}}}]")],
         "5: `spec.tracing[0].customTags.a`: a tag comes from one place: a `literal`, an `environment`, a `header` or "
         "a `formatter`"),
        ([telemetry("a", SPACE, "tracing: [{customTags: {a: {header: {name: Cookie}}}}]")],
         "5: `spec.tracing[0].customTags.a.header.name`: `cookie` is a credential, which no span shows"),
        ([telemetry("a", SPACE, "tracing: [{customTags: {a: {environment: {name: POLICYD_CA_PASSPHRASE}}}}]")],
         "5: `spec.tracing[0].customTags.a.environment.name`: `POLICYD_CA_PASSPHRASE` is a setting of policyd's own, "
         "which no span shows"),
        ([telemetry("a", SPACE, "tracing: [{randomSamplingPercentage: 101}]")],
         "5: `spec.tracing[0].randomSamplingPercentage` must be at most 100.0, not the number 101"),
    ],
)  # fmt: skip
def test_what_could_not_hold_is_refused_with_its_line(documents: list[str], problem: str) -> None:
    assert problems(folder(*documents)) == [f"mesh/telemetry.yaml:{problem}"]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("metrics: [{providers: [{name: stackdriver}]}]",
         "there is no provider `stackdriver` for `metrics`; there is `prometheus`"),
        ("tracing: [{providers: [{name: jeager}]}]",
         "there is no provider `jeager` for `tracing`; did you mean `jaeger`?"),
        ("tracing: [{providers: [{name: zipkin}], useRequestIdForTraceSampling: false}]",
         "Zipkin's tracer at `zipkin` would trace every request without the request's id; remove it, or name a "
         "provider of OpenTelemetry"),
        ("accessLogging: [{providers: [{name: loki}]}]",
         "there is no provider `loki` for `accessLogging`; there are `collector`, `envoy`; declare it in "
         "`extensionProviders` of policyd.yaml"),
        ("accessLogging: [{providers: [{name: jaeger}]}]",
         "there is no provider `jaeger` for `accessLogging`; there are `collector`, `envoy`; declare it in "
         "`extensionProviders` of policyd.yaml"),
    ],
)  # fmt: skip
def test_a_provider_that_nobody_declares_is_refused(spec: str, problem: str) -> None:
    declaration = declare(folder(telemetry("a", SPACE, spec)))
    spans, zipkin = frozenset({"policyd", "jaeger", "zipkin"}), frozenset({"zipkin"})
    providers = Providers(spans, zipkin, frozenset({"envoy", "collector"}))
    with pytest.raises(InvalidInput) as error:
        build(declaration, "cluster.local", assumed(declaration), providers=providers)
    assert [str(one) for one in error.value.problems] == [f"mesh/telemetry.yaml:5: {problem}"]
