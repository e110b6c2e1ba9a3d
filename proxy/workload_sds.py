"""Secret discovery for any Envoy of the machine, on the socket of the Workload API: who asks is known by the front.

Law: an Envoy gets what the process that it is may have, and no more; a name that is none of that ends its stream with
InvalidArgument, as SPIRE's does. The names are those that SPIRE and Istio use: `default` or an SPIFFE ID for a
certificate with its key; `ROOTCA`, `ALL` or a trust domain's own ID for what verifies peers.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any, Final

import grpc

from policyd.envoy_api import SECRET, EnvoyApi
from policyd.errors import IssuanceDenied, PolicydError
from policyd.spiffe import SpiffeId
from policyd.xds.agreed import IDENTITY_SECRET, ROOTS_SECRET
from policyd.xds.snapshot import Resource, resource
from proxy.admission import Admission, Code, Context
from proxy.book import Book
from proxy.caller import Caller
from proxy.identity import Bundle, Svid
from proxy.secret import identity, roots

ALL_ROOTS: Final = "ALL"
SERVICE: Final = "envoy.service.secret.v3.SecretDiscoveryService"
LOOK_AGAIN: Final = 30.0  # seconds; an SVID may end without anything happening
MAX_NAMES: Final = 256
_DISCOVERY: Final = "envoy.service.discovery.v3"


class UnknownName(PolicydError):
    """A secret that the caller cannot have, or that is none."""

    code = "secret_name"


def held(svids: Collection[Svid], bundle: Bundle, federated: Collection[Bundle]) -> dict[str, dict[str, Any]]:
    """All secrets of a caller by name: its identities, the first as `default` too, and what verifies peers."""
    found: dict[str, dict[str, Any]] = {}
    for svid in svids:
        found.setdefault(IDENTITY_SECRET, identity(svid))
        found[str(svid.id)] = identity(svid)
    found[ROOTS_SECRET] = roots([bundle])
    found[ALL_ROOTS] = roots([bundle, *federated])
    for one in (bundle, *federated):
        found[str(SpiffeId(one.trust_domain, ""))] = roots([one])
    return found


def chosen(secrets: Mapping[str, dict[str, Any]], names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Those of the names; without a name each identity and each trust domain once. Raises UnknownName."""
    if not names:
        aliases = (IDENTITY_SECRET, ROOTS_SECRET, ALL_ROOTS)
        return {name: fields for name, fields in secrets.items() if name not in aliases}
    unknown = sorted(name for name in names if name not in secrets)
    if unknown or len(names) > MAX_NAMES:
        raise UnknownName(f"`{(unknown or ['…'])[0][:200]}` is no secret of this process")
    return {name: secrets[name] for name in names}


class WorkloadSds:
    """StreamSecrets (the state of the world, as most bootstraps ask) and DeltaSecrets."""

    def __init__(
        self, api: EnvoyApi, book: Book, caller: Callable[[str], Caller | None], say: Callable[..., None]
    ) -> None:
        self._api = api
        self._book = book
        self._admission = Admission(caller, say)
        self._say = say
        self._messages = {
            name: api.message(f"{_DISCOVERY}.{name}")
            for name in ("DiscoveryRequest", "DiscoveryResponse", "DeltaDiscoveryRequest", "DeltaDiscoveryResponse")
        }

    def handler(self) -> grpc.GenericRpcHandler:
        """For a server behind the front."""
        methods = {
            "StreamSecrets": self._method(self._whole, "DiscoveryRequest", "DiscoveryResponse"),
            "DeltaSecrets": self._method(self._delta, "DeltaDiscoveryRequest", "DeltaDiscoveryResponse"),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _method(self, behaviour: Any, request: str, response: str) -> Any:
        reads, writes = self._messages[request].FromString, self._messages[response].SerializeToString
        return grpc.stream_stream_rpc_method_handler(behaviour, reads, writes)

    async def _whole(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """Each response has all that was asked for; another comes when it changed, or other names are asked for."""
        number, sent = 0, ""
        async for request, secrets in self._turns(requests, context, lambda one: one.resource_names):
            version = _version(secrets.values())
            if request is None and version == sent:
                continue
            if request is not None and request.response_nonce and version == sent:
                continue  # it has taken, or refused, just that
            number, sent = number + 1, version
            response = self._messages["DiscoveryResponse"](type_url=SECRET, version_info=version, nonce=str(number))
            for each in secrets.values():
                response.resources.add(type_url=each.type_url, value=each.body)
            yield response

    async def _delta(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """Each response has what is new; what was asked for goes on being told."""
        names: set[str] = set()
        sent: dict[str, str] = {}
        number = 0

        def wanted(request: Any) -> Collection[str]:
            names.update(request.resource_names_subscribe)
            names.difference_update(request.resource_names_unsubscribe)
            sent.update(request.initial_resource_versions)
            for name in request.resource_names_unsubscribe:
                sent.pop(name, None)
            for name in request.resource_names_subscribe:  # asked for anew: told anew, unless it is known to be had
                if name not in request.initial_resource_versions:
                    sent.pop(name, None)
            return frozenset(names)

        async for _, secrets in self._turns(requests, context, wanted):
            new = [each for each in secrets.values() if sent.get(each.name) != each.version]
            if not new:
                continue
            number += 1
            response = self._messages["DeltaDiscoveryResponse"](
                type_url=SECRET, system_version_info=_version(secrets.values()), nonce=str(number)
            )
            for each in new:
                sent[each.name] = each.version
                carried = response.resources.add(name=each.name, version=each.version)
                carried.resource.type_url, carried.resource.value = each.type_url, each.body
            yield response

    async def _turns(
        self, requests: AsyncIterator[Any], context: Context, wanted: Callable[[Any], Collection[str]]
    ) -> AsyncIterator[tuple[Any, dict[str, Resource]]]:
        """What is to be told now, after each request (given along) and after each change."""
        caller = await self._admission.admit(context)
        names: Collection[str] | None = None
        reading = asyncio.ensure_future(anext(requests, None))
        try:
            while True:
                changing = asyncio.ensure_future(self._book.after(self._book.number, LOOK_AGAIN))
                try:
                    await asyncio.wait((reading, changing), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changing.cancel()
                request = None
                if reading.done():
                    if (request := reading.result()) is None:
                        return
                    reading = asyncio.ensure_future(anext(requests, None))
                    self._hear(request, caller)
                    names = wanted(request)
                if names is not None:
                    yield request, await self._secrets(context, caller, names)
        finally:
            reading.cancel()

    async def _secrets(self, context: Context, caller: Caller, names: Collection[str]) -> dict[str, Resource]:
        try:
            svids = await self._svids(caller)
            assert self._book.bundle is not None, "identities come with it"
            found = chosen(held(svids, self._book.bundle, self._book.federated), names)
        except UnknownName as error:
            await context.abort(Code.INVALID_ARGUMENT, error.message)
        except PolicydError as error:
            await self._admission.refuse(context, caller, error)
        return {name: resource(SECRET, name, {"name": name, **fields}, api=self._api) for name, fields in found.items()}

    async def _svids(self, caller: Caller) -> list[Svid]:
        """All identities of a process; raises IssuanceDenied for nobody, or what hinders that there is any."""
        failure: PolicydError = IssuanceDenied("no entry makes this process a workload")
        found = []
        for one in self._book.fitting(caller.selectors):
            try:
                found.append(await self._book.svid(one.spiffe_id, caller.selectors, caller.uid))
            except PolicydError as error:  # the others are served
                failure = error
        if not found:
            raise failure
        return found

    def _hear(self, request: Any, caller: Caller) -> None:
        if request.HasField("error_detail"):
            self._say("workload.secret_rejected", pid=caller.pid, reason=request.error_detail.message[:500])


def _version(secrets: Collection[Resource]) -> str:
    text = "\n".join(f"{each.name} {each.version}" for each in secrets)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
