"""The other trust domains that are known here."""

from __future__ import annotations

from pydantic import ValidationError

from policyd._pb import authority_pb2 as pb
from policyd.ca.desk.answers import Context, answered
from policyd.ca.desk.parts import Clerk, Federation, Relations
from policyd.config.authority import FederatedSettings
from policyd.errors import FederationError
from policyd.svid import bundle


class FederationClerk(Clerk):
    """Knows others, by bundles that are brought or fetched, or no more."""

    async def ListFederation(  # noqa: N802
        self, _request: pb.ListFederationRequest, context: Context
    ) -> pb.ListFederationReply:
        """Every other trust domain that is known here."""
        async with answered(context):
            created = {one.trust_domain for one in self.parts.relations.all()} if self.parts.relations else ()
            found = self._federation().all()
            for one in found:
                one.created = one.trust_domain in created
            return pb.ListFederationReply(federated=found)

    async def ImportBundle(self, request: pb.ImportBundleRequest, context: Context) -> pb.Federated:  # noqa: N802
        """Know the workloads of another trust domain by a bundle that was brought by hand."""
        async with answered(context):
            return self._federation().brought(request.trust_domain, request.document, self.note)

    async def RefreshFederation(  # noqa: N802
        self, request: pb.RefreshFederationRequest, context: Context
    ) -> pb.Federated:
        """Ask for another trust domain's bundle now."""
        async with answered(context):
            return await self._federation().refreshed(request.trust_domain)

    async def CreateFederation(  # noqa: N802
        self, request: pb.CreateFederationRequest, context: Context
    ) -> pb.Federated:
        """Know the workloads of another trust domain, by its first bundle if that is given along."""
        async with answered(context):
            relation = relation_of(request, self.issuer.authority.trust_domain)
            if any(one.trust_domain == relation.trust_domain for one in self._federation().all()):
                raise FederationError(f"`{relation.trust_domain}` is known already")
            if request.document:
                bundle.read(request.document, relation.trust_domain)
            detail = relation.model_dump(exclude_none=True)
            self._relations().create(relation, lambda: self.note("federation.create", detail))
            await self._in_force()
            if request.document:
                return self._federation().brought(relation.trust_domain, request.document, self.note)
            return self._known(relation.trust_domain)

    async def DeleteFederation(  # noqa: N802
        self, request: pb.DeleteFederationRequest, context: Context
    ) -> pb.Federated:
        """Let the workloads of another trust domain be strangers again."""
        async with answered(context):
            name = request.trust_domain
            before = self._known(name) if any(one.trust_domain == name for one in self._federation().all()) else None
            self._relations().delete(name, lambda: self.note("federation.delete", {"trust_domain": name}))
            await self._in_force()
            return before or pb.Federated(trust_domain=name)

    async def _in_force(self) -> None:
        if pending := await self.parts.enforce():
            raise FederationError(f"it is kept, and not in force yet: {pending}")

    def _known(self, trust_domain: str) -> pb.Federated:
        return next(one for one in self._federation().all() if one.trust_domain == trust_domain)

    def _relations(self) -> Relations:
        assert self.parts.relations is not None, "the server gives them"
        return self.parts.relations

    def _federation(self) -> Federation:
        assert self.parts.federation is not None, "the server gives one"
        return self.parts.federation


def relation_of(request: pb.CreateFederationRequest, own: str) -> FederatedSettings:
    """The relation that is asked for; raises FederationError where it is none, or one with this trust domain itself."""
    try:
        relation = FederatedSettings.model_validate(
            {
                "trust_domain": request.trust_domain,
                "bundle_endpoint": request.bundle_endpoint or None,
                "profile": request.profile or "https_spiffe",
                "endpoint_id": request.endpoint_id or None,
            }
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise FederationError(str(first["msg"]).removeprefix("Value error, ")[:500]) from None
    if relation.trust_domain == own:
        raise FederationError(f"`{own}` is this trust domain itself")
    return relation
