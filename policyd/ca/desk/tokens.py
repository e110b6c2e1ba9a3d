"""Join tokens after they were made."""

from __future__ import annotations

from policyd._pb import authority_pb2 as pb
from policyd.ca.desk.answers import Context, answered
from policyd.ca.desk.parts import Clerk


class TokenClerk(Clerk):
    """Lists them, and makes unused ones worthless."""

    async def ListTokens(self, _request: pb.ListTokensRequest, _context: Context) -> pb.ListTokensReply:  # noqa: N802
        """Every join token that is kept, without its secret."""
        return pb.ListTokensReply(
            tokens=[
                pb.Token(
                    id=one.id,
                    agent=one.agent,
                    workloads=sorted(map(str, one.workloads)),
                    created_at=one.created_at,
                    expires_at=one.expires_at,
                    used_at=one.used_at or 0,
                )
                for one in self.parts.tokens.all()
            ]
        )

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.RevokeTokenReply:  # noqa: N802
        """Make an unused join token worthless."""
        async with answered(context):

            def record(agent: str) -> None:
                self.note("token.revoke", {"token": request.id, "agent": agent})

            agent = self.parts.tokens.revoke(request.id, self.issuer.now(), record)
        return pb.RevokeTokenReply(agent=agent)
