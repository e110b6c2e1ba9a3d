"""SPIFFE's Workload API: the identities of whoever calls, as it is known by the front, and what verifies others.

Law: a call without the header that the specification demands is InvalidArgument, one of nobody PermissionDenied, and
one that could be answered later Unavailable. Every message of a stream is all that there is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.struct_pb2 import Struct

from policyd._pb import workload_pb2 as pb
from policyd._pb import workload_pb2_grpc
from policyd.errors import IdentityError, IssuanceDenied, PolicydError
from policyd.spiffe import SpiffeId
from policyd.svid import bundle as bundles
from policyd.svid.jwt import check_audiences, validate
from proxy.admission import Admission, Code, Context
from proxy.assignment import Registered
from proxy.book import Book
from proxy.caller import Caller
from proxy.identity import Bundle, Svid, load_key

HEADER: Final = ("workload.spiffe.io", "true")
LOOK_AGAIN: Final = 30.0  # seconds; an SVID may end without anything happening


class WorkloadApi(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """One method an RPC; `caller` tells who is behind a peer as gRPC names it. WIT-SVIDs are Unimplemented."""

    def __init__(
        self,
        book: Book,
        caller: Callable[[str], Caller | None],
        clock: Callable[[], datetime],
        say: Callable[..., None],
    ) -> None:
        self._book = book
        self._admission = Admission(caller, say)
        self._clock = clock

    async def FetchX509SVID(  # noqa: N802
        self, _request: pb.X509SVIDRequest, context: Context
    ) -> AsyncIterator[pb.X509SVIDResponse]:
        """All X.509-SVIDs of the caller, at once and again after every change."""
        async for reply in self._stream(context, self._x509_svids):
            yield reply

    async def FetchX509Bundles(  # noqa: N802
        self, _request: pb.X509BundlesRequest, context: Context
    ) -> AsyncIterator[pb.X509BundlesResponse]:
        """The roots by trust domain, at once and again after every change."""
        async for reply in self._stream(context, self._x509_bundles):
            yield reply

    async def FetchJWTBundles(  # noqa: N802
        self, _request: pb.JWTBundlesRequest, context: Context
    ) -> AsyncIterator[pb.JWTBundlesResponse]:
        """The JWT keys by trust domain, at once and again after every change."""
        async for reply in self._stream(context, self._jwt_bundles):
            yield reply

    async def FetchJWTSVID(self, request: pb.JWTSVIDRequest, context: Context) -> pb.JWTSVIDResponse:  # noqa: N802
        """A JWT-SVID of each identity of the caller, or of the one that it names."""
        caller = await self._admit(context)
        try:
            audiences = check_audiences(tuple(request.audience))
            wanted = SpiffeId.parse(request.spiffe_id) if request.spiffe_id else None
        except PolicydError as error:
            await context.abort(Code.INVALID_ARGUMENT, str(error))
        try:
            return pb.JWTSVIDResponse(svids=await self._tokens(caller, audiences, wanted))
        except PolicydError as error:
            await self._admission.refuse(context, caller, error)

    async def ValidateJWTSVID(  # noqa: N802
        self, request: pb.ValidateJWTSVIDRequest, context: Context
    ) -> pb.ValidateJWTSVIDResponse:
        """Whose a JWT-SVID is, and what it says, if it is good and for this audience."""
        caller = await self._admit(context)
        try:
            self._identities(caller)
        except PolicydError as error:
            await self._admission.refuse(context, caller, error)
        if not request.audience or not request.svid:
            await context.abort(Code.INVALID_ARGUMENT, "the request names an audience and a token")
        try:
            svid = validate(request.svid, self._jwt_bundle, request.audience, self._clock())
            claims = ParseDict(dict(svid.claims), Struct())
        except (PolicydError, ParseError) as error:
            await context.abort(Code.INVALID_ARGUMENT, str(error)[:500])
        return pb.ValidateJWTSVIDResponse(spiffe_id=str(svid.spiffe_id), claims=claims)

    # ---- who asks

    async def _admit(self, context: Context) -> Caller:
        """The caller; ends the call without the header, or where it came past the front."""
        given = [value for name, value in context.invocation_metadata() or () if name == HEADER[0]]
        if given != [HEADER[1]]:
            await context.abort(Code.INVALID_ARGUMENT, "security header missing from request")
        return await self._admission.admit(context)

    def _identities(self, caller: Caller) -> tuple[Registered, ...]:
        """What the caller is; raises IssuanceDenied for nobody."""
        found = self._book.fitting(caller.selectors)
        if not found:
            raise IssuanceDenied("no entry makes this process a workload")
        return found

    # ---- what is answered

    async def _stream(self, context: Context, make: Callable[[Caller], Any]) -> AsyncIterator[Any]:
        caller = await self._admit(context)
        sent: object = None
        while True:
            seen = self._book.number
            try:
                reply = await make(caller)
            except PolicydError as error:
                await self._admission.refuse(context, caller, error)
            if reply != sent:
                yield reply
                sent = reply
            await self._book.after(seen, LOOK_AGAIN)

    async def _x509_svids(self, caller: Caller) -> pb.X509SVIDResponse:
        svids: list[tuple[Registered, Svid]] = []
        failure: PolicydError | None = None
        for one in self._identities(caller):
            try:
                svids.append((one, await self._book.svid(one.spiffe_id, caller.selectors, caller.uid)))
            except PolicydError as error:  # the others are served; one that was only late comes with a later message
                failure = failure if failure and not isinstance(failure, IssuanceDenied) else error
        if not svids:
            assert failure is not None, "there was one"
            raise failure
        roots = b"".join(self._held_bundle().roots)
        return pb.X509SVIDResponse(
            svids=[_svid(svid, roots, hint) for svid, hint in _hinted(svids)],
            federated_bundles={_domain(one): b"".join(one.roots) for one in self._book.federated},
            crl=self._book.crls,
        )

    async def _x509_bundles(self, caller: Caller) -> pb.X509BundlesResponse:
        self._identities(caller)
        found = {_domain(one): b"".join(one.roots) for one in self._known()}
        return pb.X509BundlesResponse(bundles=found, crl=self._book.crls)

    async def _jwt_bundles(self, caller: Caller) -> pb.JWTBundlesResponse:
        self._identities(caller)
        found = [self._jwt_bundle(one.trust_domain) or bundles.Bundle(one.trust_domain) for one in self._known()]
        return pb.JWTBundlesResponse(
            bundles={str(SpiffeId(one.trust_domain, "")): bundles.write(one, (bundles.JWT_SVID,)) for one in found}
        )

    async def _tokens(self, caller: Caller, audiences: tuple[str, ...], wanted: SpiffeId | None) -> list[pb.JWTSVID]:
        identities = [one for one in self._identities(caller) if wanted in (None, one.spiffe_id)]
        if not identities:
            raise IssuanceDenied(f"this process is not `{wanted}`")
        made: list[pb.JWTSVID] = []
        failure: PolicydError | None = None
        for one in identities:
            try:
                text = await self._book.token(one.spiffe_id, caller.selectors, audiences, caller.uid)
                made.append(pb.JWTSVID(spiffe_id=str(one.spiffe_id), svid=text, hint=one.hint))
            except IssuanceDenied as error:  # of several, those that are granted
                failure = error
        if not made and failure is not None:
            raise failure
        return made

    def _held_bundle(self) -> Bundle:
        assert self._book.bundle is not None, "identities come with it"
        return self._book.bundle

    def _known(self) -> tuple[Bundle, ...]:
        """The bundles of all trust domains, its own first."""
        return (self._held_bundle(), *self._book.federated)

    def _jwt_bundle(self, trust_domain: str) -> bundles.Bundle | None:
        """The keys of a trust domain's tokens: its own, never another's."""
        if self._book.bundle is None:
            return None
        held = next((one for one in self._known() if one.trust_domain == trust_domain), None)
        if held is None or not held.jwt_keys:
            return None
        with suppress(IdentityError):  # it was checked when it came
            return bundles.read(held.jwt_keys, trust_domain)
        return None


def _svid(svid: Svid, roots: bytes, hint: str) -> pb.X509SVID:
    key = load_key(svid.key_pem).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pb.X509SVID(
        spiffe_id=str(svid.id), x509_svid=b"".join(svid.chain), x509_svid_key=key, bundle=roots, hint=hint
    )


def _hinted(svids: list[tuple[Registered, Svid]]) -> list[tuple[Svid, str]]:
    """Each hint once in a message, as the specification has it; the first one wins."""
    used: set[str] = set()
    found = []
    for one, svid in svids:
        found.append((svid, "" if one.hint in used else one.hint))
        used.add(one.hint)
    return found


def _domain(bundle: Bundle) -> str:
    return str(SpiffeId(bundle.trust_domain, ""))
