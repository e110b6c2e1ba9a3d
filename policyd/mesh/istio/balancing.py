"""Which instance of a destination gets a request (Istio's LoadBalancerSettings)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import HeaderName, Path
from policyd.mesh.istio.quantities import Percent, Wait
from policyd.mesh.locality import check_locality_pattern, check_region
from policyd.mesh.matching import check_label_or_pair, check_token
from policyd.strict import Duration, Many, Model

Token = Annotated[str, AfterValidator(check_token)]


class CookieAttribute(Model):
    """One more attribute of the cookie, such as `SameSite`."""

    name: Token
    value: Annotated[str, Field(max_length=1024, pattern=r"^[^;\x00-\x1f\x7f]*$")] = ""


class HttpCookie(Model):
    """A cookie by which requests are told apart; with a `ttl` it is made for who has none (0: for the session)."""

    name: Token
    path: Path | None = None
    ttl: Duration | None = None
    attributes: Many[CookieAttribute] = ()


class RingHash(Model):
    """A ring of at least so many places."""

    minimum_ring_size: Annotated[int, Field(ge=1, le=8_388_608)] = 1024  # the larger one is Envoy's limit


class Maglev(Model):
    """A table of so many places."""

    table_size: Annotated[int, Field(ge=2, le=5_000_011)] = 65_537

    @model_validator(mode="after")
    def _prime(self) -> Maglev:
        size = self.table_size
        if any(size % divisor == 0 for divisor in range(2, int(size**0.5) + 1)):
            raise ValueError(f"the table of Maglev has a prime number of places, and {size} is none; take 65537")
        return self


class ConsistentHash(Model):
    """What is equal in requests sends them to the same instance, as long as that is there."""

    http_header_name: HeaderName | None = None
    http_cookie: HttpCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    ring_hash: RingHash | None = None
    maglev: Maglev | None = None
    minimum_ring_size: Annotated[int, Field(ge=0, le=8_388_608)] | None = None

    @model_validator(mode="after")
    def _one(self) -> ConsistentHash:
        keys = (self.http_header_name, self.http_cookie, self.use_source_ip, self.http_query_parameter_name)
        if sum(key is not None for key in keys) != 1 or self.use_source_ip is False:
            names = "`httpHeaderName`, `httpCookie`, `httpQueryParameterName` and `useSourceIp: true`"
            raise ValueError(f"give exactly one of {names}")
        if sum(table is not None for table in (self.ring_hash, self.maglev, self.minimum_ring_size)) > 1:
            raise ValueError("several of `ringHash`, `maglev` and `minimumRingSize`; keep one")
        return self


class Distribute(Model):
    """Where the requests of callers in `from` go, in percent by locality; `*` at the end stands for the rest."""

    from_: Annotated[str, AfterValidator(check_locality_pattern), Field(alias="from")]
    to: Annotated[
        Mapping[Annotated[str, AfterValidator(check_locality_pattern)], Annotated[int, Field(ge=1, le=100)]],
        Field(min_length=1),
    ]

    @model_validator(mode="after")
    def _whole(self) -> Distribute:
        if (total := sum(self.to.values())) != 100:
            raise ValueError(f"the shares of `{self.from_}` add up to {total}; make it 100")
        return self


class Failover(Model):
    """The region that takes over where that of the caller, `from`, has nothing left."""

    from_: Annotated[str, AfterValidator(check_region), Field(alias="from")]
    to: Annotated[str, AfterValidator(check_region)]

    @model_validator(mode="after")
    def _elsewhere(self) -> Failover:
        if self.from_ == self.to:
            raise ValueError(f"`{self.to}` fails over to itself; name another region")
        return self


class LocalityBalancing(Model):
    """Which localities are preferred: by shares, or the nearest first where outlier detection finds the broken ones."""

    enabled: bool = True
    distribute: Many[Distribute] = ()
    failover: Many[Failover] = ()
    failover_priority: Many[Annotated[str, AfterValidator(check_label_or_pair)]] = ()

    @model_validator(mode="after")
    def _one(self) -> LocalityBalancing:
        if sum(bool(way) for way in (self.distribute, self.failover, self.failover_priority)) > 1:
            raise ValueError("several of `distribute`, `failover` and `failoverPriority`; keep one")
        return self


class Warmup(Model):
    """What is new gets its share little by little: from `minimum_percent` on, in `duration`."""

    duration: Wait
    minimum_percent: Percent = 10
    aggression: Annotated[float, Field(ge=1.0, le=1000.0, strict=False)] = 1.0


class LoadBalancer(Model):
    """Which instance gets a request.

    With PASSTHROUGH nothing is balanced: a Host is reached at what its own name means, whatever endpoints are declared,
    and of a Service any instance as it comes, as behind its address in a cluster of Kubernetes.
    """

    simple: Literal["UNSPECIFIED", "LEAST_CONN", "LEAST_REQUEST", "ROUND_ROBIN", "RANDOM", "PASSTHROUGH"] | None = None
    consistent_hash: ConsistentHash | None = None
    locality_lb_setting: LocalityBalancing | None = None
    warmup: Warmup | None = None
    warmup_duration_secs: Wait | None = None

    @model_validator(mode="after")
    def _fits(self) -> LoadBalancer:
        if self.simple is not None and self.consistent_hash is not None:
            raise ValueError("both `simple` and `consistentHash`; keep one")
        if self.warmup is not None and self.warmup_duration_secs is not None:
            raise ValueError("both `warmup` and `warmupDurationSecs`; keep `warmup`")
        if self.passes_through and self.locality_lb_setting is not None:
            raise ValueError("`PASSTHROUGH` looks at no locality; choose another, or leave `localityLbSetting` out")
        if self.slow_start is not None and (self.simple in ("RANDOM", "PASSTHROUGH") or self.consistent_hash):
            raise ValueError("only `LEAST_REQUEST` and `ROUND_ROBIN` warm up; choose one, or leave `warmup` out")
        return self

    @property
    def passes_through(self) -> bool:
        """Whether nothing is balanced."""
        return self.simple == "PASSTHROUGH"

    @property
    def slow_start(self) -> Warmup | None:
        """The warm-up, by whichever field it was asked for."""
        if self.warmup_duration_secs is not None:
            return Warmup(duration=self.warmup_duration_secs)
        return self.warmup
