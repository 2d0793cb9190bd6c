"""What a replica of the control plane keeps of those it refuses."""

from __future__ import annotations

import os

from weft.controlplane.sealing import KEY_BYTES, Sealer
from weft.controlplane.security import open_security
from weft.controlplane.settings import ControlPlaneSettings
from weft.store.memory import MemoryStore


async def test_who_asks_for_what_is_not_theirs_over_and_over_does_not_fill_the_audit() -> None:
    store = MemoryStore()
    async with open_security(ControlPlaneSettings(), store, Sealer([os.urandom(KEY_BYTES)])) as security:
        for _ in range(1000):
            security.note_denied_stream("spiffe://weft.local/agent/eve/e-1", None, "it is another's")
        found = await security.audit.recent(1000)
    await store.close()
    assert 100 <= len(found) < 200
    assert {each.who for each in found} == {"spiffe://weft.local/agent/eve/e-1"}
