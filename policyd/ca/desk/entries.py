"""Which processes on agents' machines, pods and machines are which workload."""

from __future__ import annotations

from policyd._pb import authority_pb2 as pb
from policyd.ca.desk.answers import Context, answered
from policyd.ca.desk.parts import Clerk
from policyd.ca.entries import ID_BYTES, Entry, check_entry
from policyd.errors import NotFound
from policyd.spiffe import SpiffeId


class EntryClerk(Clerk):
    """Makes, lists and takes away entries."""

    async def CreateEntry(self, request: pb.CreateEntryRequest, context: Context) -> pb.Entry:  # noqa: N802
        """Let processes that have all selectors be a declared workload."""
        async with answered(context):
            return self._create_entry(request)

    async def ListEntries(self, _request: pb.ListEntriesRequest, _context: Context) -> pb.ListEntriesReply:  # noqa: N802
        """Every entry."""
        return pb.ListEntriesReply(entries=[_entry(one) for one in self.parts.entries.all()])

    async def DeleteEntry(self, request: pb.DeleteEntryRequest, context: Context) -> pb.Entry:  # noqa: N802
        """Let those processes be nobody again; what they hold ends by itself."""
        async with answered(context):
            return self._delete_entry(request.id)

    def _create_entry(self, request: pb.CreateEntryRequest) -> pb.Entry:
        identity = SpiffeId.parse(request.spiffe_id)
        if identity not in self.parts.mesh().workloads:
            raise NotFound(f"`{identity}` is no workload of this mesh", remedy="declare it in workloads.yaml")
        name = self.parts.random(ID_BYTES).hex()
        entry = check_entry(Entry(identity, frozenset(request.selectors), request.hint, name))
        now = int(self.issuer.now().timestamp())
        self.parts.entries.create(entry, now, lambda: self._record("entry.create", entry))
        self.parts.changed()
        return _entry(entry)

    def _delete_entry(self, identifier: str) -> pb.Entry:
        deleted = self.parts.entries.delete(identifier, lambda entry: self._record("entry.delete", entry))
        if deleted is None:
            raise NotFound(f"`{identifier[:80]}` is no entry", remedy="look at `policyd ca entry list`")
        self.parts.changed()
        return _entry(deleted)

    def _record(self, operation: str, entry: Entry) -> None:
        selectors = sorted(entry.selectors)
        self.note(operation, {"entry": entry.id, "spiffe_id": str(entry.spiffe_id), "selectors": selectors})


def _entry(entry: Entry) -> pb.Entry:
    return pb.Entry(id=entry.id, spiffe_id=str(entry.spiffe_id), selectors=sorted(entry.selectors), hint=entry.hint)
