"""Access to the control plane's API for tests: real tokens, and an audit that can be read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.pki import Pki
from weft.controlplane.api.access import Access, control_access
from weft.controlplane.tokens import Tokens
from weft.model.audit import AuditRecord
from weft.model.operator import Scope
from weft.store.bucket import Store


class MemoryAudit:
    """An audit that is kept in memory."""

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []
        """All that was recorded, the oldest first."""

    def record(self, record: AuditRecord) -> None:
        """Keep `record`."""
        self.records.append(record)

    async def recent(self, limit: int, *, since: float | None = None) -> list[AuditRecord]:
        """The last `limit` records, if given only those `since` a time."""
        return [each for each in self.records if since is None or each.time >= since][-limit:]


@dataclass(frozen=True)
class TestAccess:
    """What an ApiContext needs, and what a client of it needs."""

    __test__ = False

    access: Access
    audit: MemoryAudit
    headers: dict[str, str]
    """Say that an admin asks."""


@asynccontextmanager
async def admin_access(store: Store) -> AsyncIterator[TestAccess]:
    """Access with tokens in `store`, one of them an admin's."""
    pki, audit = Pki(), MemoryAudit()
    async with Tokens.follow(store) as tokens:
        access = control_access(tokens, audit, bundles=pki.bundles, observer="control-1")
        token, _ = await tokens.create("tests", Scope.ADMIN, created_by="tests")
        yield TestAccess(access, audit, {"authorization": f"Bearer {token}"})
