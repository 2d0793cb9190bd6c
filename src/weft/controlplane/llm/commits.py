"""Group commit: what a term changed is written together, before anybody hears of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from weft.aio.poll import until
from weft.controlplane.llm.kept_records import KeptRecords
from weft.controlplane.llm.ledger import BudgetLedger
from weft.controlplane.llm.ledger_records import LedgerRecord
from weft.controlplane.llm.pool import PoolScheduler
from weft.controlplane.llm.pool_state import PoolState
from weft.errors import Unavailable

logger = logging.getLogger(__name__)

SETTLE: Final = 0.05
"""Seconds for which changes that nobody waits for (calls that ended) are gathered before they are written."""

RETRY: Final = 0.1
"""Seconds after which a writing that failed is tried again."""

WRITE_LIMIT: Final = 5.0
"""Seconds for which writing may fail before the calls that wait for it are told."""


class Commits:
    """The states of pools and the accounts of budgets that are not written yet."""

    def __init__(
        self,
        pools: KeptRecords[PoolState | None],
        accounts: KeptRecords[LedgerRecord],
        ledger: BudgetLedger,
        clock: Callable[[], float],
    ) -> None:
        self._kept_pools = pools
        self._kept_accounts = accounts
        self._ledger = ledger
        self._clock = clock
        self._changed: set[str] = set()
        """Pools whose state is not written yet."""
        self._unwritten: dict[str, LedgerRecord] = {}
        self._expired: set[str] = set()
        self._written_at = float("-inf")

    def note_pool(self, name: str) -> None:
        """The state of a pool changed."""
        self._changed.add(name)

    def note_expired(self, keys: Iterable[str]) -> None:
        """These accounts are of no use any more."""
        self._expired.update(keys)

    def settles_at(self) -> float | None:
        """When to write what nobody waits for; None: there is nothing to write."""
        return self._written_at + SETTLE if self._changed or self._unwritten else None

    async def write(self, pools: Mapping[str, PoolScheduler]) -> float:
        """Write all that changed; `pools` are those of the term. Returns how many seconds it took.

        Tried again while the store is away, but not for long: raises TimeoutError then. Raises Superseded
        when another leader wrote.
        """
        began = self._clock()

        async def written() -> bool:
            return await self._written(pools)

        async with asyncio.timeout(WRITE_LIMIT):
            await until(written, first=RETRY)
        self._written_at = self._clock()
        return self._written_at - began

    async def _written(self, pools: Mapping[str, PoolScheduler]) -> bool:
        names, self._changed = self._changed & pools.keys(), set()
        states = {name: pools[name].state() for name in names}
        self._unwritten.update({each.key: each for each in self._ledger.changed()})
        accounts, self._unwritten = self._unwritten, {}
        expired, self._expired = self._expired - accounts.keys(), set()
        try:
            await asyncio.gather(
                self._kept_pools.write(states),
                self._kept_accounts.write(accounts),
                self._kept_accounts.delete(expired),
            )
        except Unavailable as error:
            logger.warning("what was decided about calls to models cannot be written: %s", error)
            self._changed |= names
            self._unwritten = {**accounts, **self._unwritten}
            self._expired |= expired
            return False
        return True
