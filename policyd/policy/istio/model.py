"""Istio's AuthorizationPolicy as strict models, field by field.

Law: a field that Istio has is here, so that its meaning is translated or refused by name; any other is refused.
Reference: https://istio.io/latest/docs/reference/config/security/authorization-policy/ (up to 1.31).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import Labels
from policyd.strict import NOTHING, Many, Model, Name

KIND: Final = "AuthorizationPolicy"
DRY_RUN: Final = "istio.io/dry-run"
MAX_RULES: Final = 512
MAX_SOURCES: Final = 512
MAX_TARGETS: Final = 16
MAX_ACCOUNTS: Final = 16
TRUE_WORDS: Final = ("1", "t", "T", "TRUE", "true", "True")  # what Go's strconv.ParseBool takes
FALSE_WORDS: Final = ("0", "f", "F", "FALSE", "false", "False")

Action = Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"]

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"`{name[:80]}` is no name of a resource; use lower-case letters, digits, dots and dashes")
    return name


Text = Annotated[str, Field(min_length=1, max_length=2048)]
Values = Annotated[Many[Text], Field(min_length=1, max_length=10_000)]  # an empty list would be no restriction
ResourceName = Annotated[str, AfterValidator(_check_name)]


class Metadata(Model):
    """Names the policy; what a cluster adds to it says nothing about decisions."""

    name: ResourceName
    namespace: Name | None = None
    labels: Mapping[str, str] = NOTHING
    annotations: Mapping[str, str] = NOTHING
    uid: Any = None
    resource_version: Any = None
    generation: Any = None
    creation_timestamp: Any = None
    managed_fields: Any = None
    owner_references: Any = None
    finalizers: Any = None
    self_link: Any = None

    @model_validator(mode="after")
    def _dry_run(self) -> Metadata:
        word = self.annotations.get(DRY_RUN)
        if word is not None and word not in (*TRUE_WORDS, *FALSE_WORDS):
            raise ValueError(f"the annotation `{DRY_RUN}` is `{word[:80]}`; write `true` or `false`")
        return self


class Source(Model):
    """Who asks: all fields hold, any value of a field does; `not…` is no value of it."""

    principals: Values = ()
    not_principals: Values = ()
    request_principals: Values = ()
    not_request_principals: Values = ()
    namespaces: Values = ()
    not_namespaces: Values = ()
    service_accounts: Annotated[Values, Field(max_length=MAX_ACCOUNTS)] = ()
    not_service_accounts: Annotated[Values, Field(max_length=MAX_ACCOUNTS)] = ()
    ip_blocks: Values = ()
    not_ip_blocks: Values = ()
    remote_ip_blocks: Values = ()
    not_remote_ip_blocks: Values = ()
    trust_domains: Values = ()
    not_trust_domains: Values = ()

    @model_validator(mode="after")
    def _consistent(self) -> Source:
        if not self.model_fields_set:
            raise ValueError("it has no field; write one, or remove `from`")
        accounts = {"service_accounts", "not_service_accounts"} & self.model_fields_set
        others = {"principals", "not_principals", "namespaces", "not_namespaces"} & self.model_fields_set
        if accounts and others:
            raise ValueError("service accounts stand with no principals and no namespaces; keep one of them")
        return self


class From(Model):
    """One entry of `from`."""

    source: Source


class Operation(Model):
    """What is asked: all fields hold, any value of a field does; `not…` is no value of it."""

    hosts: Values = ()
    not_hosts: Values = ()
    ports: Values = ()
    not_ports: Values = ()
    methods: Values = ()
    not_methods: Values = ()
    paths: Values = ()
    not_paths: Values = ()

    @model_validator(mode="after")
    def _some(self) -> Operation:
        if not self.model_fields_set:
            raise ValueError("it has no field; write one, or remove `to`")
        return self


class To(Model):
    """One entry of `to`."""

    operation: Operation


class Condition(Model):
    """One entry of `when`."""

    key: Text
    values: Values = ()
    not_values: Values = ()

    @model_validator(mode="after")
    def _some(self) -> Condition:
        if not self.values and not self.not_values:
            raise ValueError("neither `values` nor `notValues` is given; add one")
        return self


class Rule(Model):
    """A rule matches where one of `from`, one of `to` and all of `when` do; an absent one always does."""

    from_: Annotated[Many[From], Field(min_length=1, max_length=MAX_SOURCES, alias="from")] = ()
    to: Annotated[Many[To], Field(min_length=1)] = ()
    when: Annotated[Many[Condition], Field(min_length=1)] = ()


class Selector(Model):
    """The workloads with all these labels."""

    match_labels: Labels = NOTHING


class TargetRef(Model):
    """A resource that the policy is attached to, in its own namespace."""

    group: str = ""
    kind: Text
    name: Text
    namespace: str | None = None


class Provider(Model):
    """The external authorizer of a CUSTOM policy."""

    name: str


class Spec(Model):
    """What is decided, and for which workloads."""

    action: Action = "ALLOW"
    rules: Annotated[Many[Rule], Field(max_length=MAX_RULES)] = ()
    selector: Selector = Selector()
    target_ref: TargetRef | None = None
    target_refs: Annotated[Many[TargetRef], Field(max_length=MAX_TARGETS)] = ()
    provider: Provider | None = None

    @model_validator(mode="after")
    def _one_target(self) -> Spec:
        if sum((bool(self.selector.match_labels), self.target_ref is not None, bool(self.target_refs))) > 1:
            raise ValueError("several of `selector`, `targetRef` and `targetRefs`; keep one")
        return self


class AuthorizationPolicy(Model):
    """One policy; without a namespace the importer's one holds."""

    api_version: Literal["security.istio.io/v1", "security.istio.io/v1beta1"]
    kind: Literal["AuthorizationPolicy"]
    metadata: Metadata
    spec: Spec | None = None  # the same as an empty one
    status: Any = None

    @property
    def dry_run(self) -> bool:
        """Whether it is only observed, never enforced."""
        return self.metadata.annotations.get(DRY_RUN) in TRUE_WORDS
