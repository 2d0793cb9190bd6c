"""A term: what one leader decides, from what its predecessors wrote until it leads no more.

Calls are told that they may start only when that is written: decisions are gathered, written together, and
told. What comes while they are being written goes with the next.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from weft.controlplane.llm.call import (
    Admission,
    Attempt,
    Call,
    Decision,
    Ended,
    LeasedEnds,
    Reason,
    Refusal,
)
from weft.controlplane.llm.commits import Commits
from weft.controlplane.llm.declared import Declared
from weft.controlplane.llm.kept_records import KeptRecords
from weft.controlplane.llm.ledger import BudgetLedger
from weft.controlplane.llm.ledger_records import LedgerRecord
from weft.controlplane.llm.metrics import LlmMetrics
from weft.controlplane.llm.pool import PoolScheduler
from weft.controlplane.llm.pool_state import PoolState
from weft.controlplane.llm.state_records import StateBuckets
from weft.controlplane.translate.llm_logs import STILL_RUNS_INTERVAL
from weft.model.llm_lease import Grant
from weft.model.model_pool import ModelPool

logger = logging.getLogger(__name__)

MANY: Final = 3
"""Admissions in one writing from which on the next waits for more: a writing costs what ten calls do."""

LONGEST_GATHERING: Final = 0.008
"""Seconds that it waits at most."""

LOST_AFTER: Final = 3.5 * STILL_RUNS_INTERVAL
"""Seconds after which a call that no sidecar has told of any more is over: its end was told to a replica that
died, or its sidecar did."""

TIDYING: Final = 5.0
"""Seconds between two looks for what is of no use any more."""

FORGETTING: Final = 60.0
"""Seconds between two looks through all accounts of budgets."""

Grants = Mapping[str, tuple[Grant, ...]]
"""What each holder may send without asking, all pools together."""


class Lapsed(Exception):
    """This replica does not lead any more: whoever waits has to ask anew."""


@dataclass(eq=False, slots=True)
class _Waiting:
    call: Call
    decision: asyncio.Future[Decision]
    since: float
    decided: bool = False
    """It is decided, and not told yet."""


@dataclass(slots=True)
class _Live:
    """A call under way."""

    pool: str
    heard: float
    """When it was last known to be."""


@dataclass(slots=True)
class _Due:
    """What is to be told once everything is written."""

    admissions: list[Admission] = field(default_factory=list)
    grants: Grants | None = None


class Term:
    """One term. Begin it with `begin`; have `run` run; `close` it."""

    def __init__(
        self,
        commits: Commits,
        ledger: BudgetLedger,
        metrics: LlmMetrics,
        *,
        leads: Callable[[], bool],
        lease: Callable[[Grants], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._commits = commits
        self._ledger = ledger
        self._metrics = metrics
        self._leads = leads
        self._lease = lease
        self._clock = clock
        self._states: dict[str, PoolState] = {}
        self._pools: dict[str, PoolScheduler] = {}
        self._specs: dict[str, ModelPool] = {}
        self._retired: dict[str, PoolScheduler] = {}
        """Pools that are not declared any more, of whose calls the ends are still told."""
        self._wakes: dict[str, float] = {}
        self._contended: set[str] = set()
        self._waiting: dict[str, _Waiting] = {}
        self._live: dict[str, _Live] = {}
        """Calls under way, by id."""
        self._touched: set[str] = set()
        """Pools that may have something to decide."""
        self._lease_due = False
        self._tidied_at = float("-inf")
        self._looked_at = float("-inf")
        self._woken = asyncio.Event()
        self._closed = False

    @classmethod
    async def begin(
        cls,
        buckets: StateBuckets,
        term: str,
        declared: Declared,
        metrics: LlmMetrics,
        *,
        leads: Callable[[], bool],
        lease: Callable[[Grants], None],
        clock: Callable[[], float] = time.time,
        ended: Iterable[Ended] = (),
    ) -> Term:
        """Go on from what was written, of which no other leader can write anything from then on.

        `leads` says whether this replica leads at this moment; `lease` hands out what is granted; `ended` are
        calls of whose ends it was told before, which may not have been written. Raises Unavailable, and
        Superseded if another leader writes at this moment.
        """
        pools: KeptRecords[PoolState | None] = KeptRecords(buckets.pools, term)
        accounts: KeptRecords[LedgerRecord] = KeptRecords(buckets.accounts, term)
        states, records = await asyncio.gather(pools.load(), accounts.load())
        await pools.write(states)
        ledger = BudgetLedger(declared.budgets, records.values())
        commits = Commits(pools, accounts, ledger, clock)
        begun = cls(commits, ledger, metrics, leads=leads, lease=lease, clock=clock)
        begun._states = {name: state for name, state in states.items() if state is not None}
        begun.reconfigure(declared)
        for each in ended:
            begun.ended(each)
        return begun

    @property
    def now(self) -> float:
        """Seconds since 1970, by the clock that everything in this term goes by."""
        return self._clock()

    @property
    def pools(self) -> Mapping[str, PoolScheduler]:
        """The schedulers of the pools that are declared."""
        return self._pools

    @property
    def specs(self) -> Mapping[str, ModelPool]:
        """The pools by name, also those that are not declared any more."""
        return self._specs

    @property
    def ledger(self) -> BudgetLedger:
        """What budgets have spent."""
        return self._ledger

    @property
    def waiting(self) -> Iterable[Call]:
        """The calls that nothing was decided about yet, in the order in which they came."""
        return (each.call for each in self._waiting.values() if not each.decided)

    def sidecars(self) -> set[str]:
        """Those through which calls went that were under way when the term began."""
        return {each.sidecar for state in self._states.values() for each in state.flights}

    def reconfigure(self, declared: Declared) -> None:
        """Go on with these pools and budgets."""
        now = self._clock()
        self._ledger.reconfigure(declared.budgets)
        for name in self._pools.keys() - declared.pools.keys():
            self._retire(name)
        for name, pool in declared.pools.items():
            if name not in self._pools:
                self._open(pool, now)
            elif self._specs[name] != pool:
                self._pools[name].reconfigure(pool, now)
                self._touch(name)
            self._specs[name] = pool
        self._woken.set()

    def ask(self, call: Call) -> asyncio.Future[Decision]:
        """What will be decided about `call`, or Lapsed. Who waits no more says so by `leave`."""
        return self._submit(call, lambda pool, now: pool.submit(call, now))

    def retry(self, call: Call, provider: str) -> asyncio.Future[Decision]:
        """Whether a further attempt of `call` may go to `provider` now."""
        known = call if call.id not in self._live else None
        return self._submit(call, lambda pool, now: pool.retry(call.id, known, provider, now))

    def leave(self, call: Call) -> None:
        """Nobody waits for what is decided about a call any more, or was there to hear of it."""
        self._waiting.pop(call.id, None)
        self._live.pop(call.id, None)
        pool = self._scheduler(call.pool)
        if pool is not None:
            pool.withdraw(call.id, self._clock())
            self._touch(call.pool)

    def ended(self, end: Ended) -> bool:
        """A call is over. False if it is none that is under way: it was told before, or never admitted."""
        pool = end.pool
        if end.call_id is not None:
            live = self._live.pop(end.call_id, None)
            if live is None:
                return False
            pool = live.pool
        scheduler = self._scheduler(pool)
        if scheduler is not None:
            scheduler.ended(end, self._clock())
            self._touch(pool)
        return True

    def ended_on_leases(self, ends: LeasedEnds) -> None:
        """Calls on leases are over, which ended well."""
        scheduler = self._pools.get(ends.pool)
        if scheduler is None:
            return
        scheduler.ended_on_leases(ends, self._clock())
        # Usually that has nobody start, and nothing counted that a grant did not count before.
        if ends.beyond or ends.pool in self._contended:
            self._touch(ends.pool)
        else:
            self._commits.note_pool(ends.pool)

    def still_runs(self, call_id: str) -> None:
        """A call is still under way."""
        live = self._live.get(call_id)
        if live is not None:
            live.heard = self._clock()

    def attempt_failed(self, attempt: Attempt) -> None:
        """A provider failed."""
        scheduler = self._pools.get(attempt.pool)
        if scheduler is not None:
            scheduler.attempt_failed(attempt, self._clock())
            self._touch(attempt.pool)

    def demand(self, pool: str, holder: str, tokens: int, calls: int = 1) -> None:
        """A sidecar sent so many more calls on its lease, or asked for them; `tokens` of all together."""
        scheduler = self._pools.get(pool)
        # Where a budget is concerned all calls ask: what was leased would lie idle.
        if scheduler is not None and not self._ledger.concerns(pool):
            scheduler.demand(holder, calls, tokens, self._clock())

    def sidecar_gone(self, sidecar: str) -> None:
        """All calls of a sidecar have ended."""
        now = self._clock()
        for name, pool in (self._pools | self._retired).items():
            pool.sidecar_gone(sidecar, now)
            self._touch(name)

    def grant(self) -> None:
        """Have leases granted anew, as is to be done once a second."""
        self._lease_due = True
        self._woken.set()

    async def run(self) -> None:
        """Decide, write, tell; for ever.

        Raises Lapsed when this replica leads no more, or cannot write; Superseded when another leader wrote.
        """
        while True:
            await self._until_due()
            if not self._leads():
                raise Lapsed
            due = self._decide()
            if due.admissions or due.grants is not None or self._settles(self._clock()):
                took = await self._write()
                self._tell(due)
                if len(due.admissions) >= MANY:
                    await asyncio.sleep(min(4 * took, LONGEST_GATHERING))

    def close(self) -> None:
        """Let all who wait ask anew, elsewhere."""
        self._closed = True
        for each in self._waiting.values():
            if not each.decision.done():
                each.decision.set_exception(Lapsed())
                each.decision.exception()  # who left does not look
        self._waiting.clear()

    def _submit(self, call: Call, put: Callable[[PoolScheduler, float], None]) -> asyncio.Future[Decision]:
        decision: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        pool = self._pools.get(call.pool)
        if self._closed:
            decision.set_exception(Lapsed())
        elif pool is None:
            decision.set_result(_unknown(call))
        else:
            now = self._clock()
            put(pool, now)
            self._waiting[call.id] = _Waiting(call, decision, now)
            self._touch(call.pool)
        return decision

    def _scheduler(self, pool: str) -> PoolScheduler | None:
        return self._pools.get(pool) or self._retired.get(pool)

    def _touch(self, pool: str) -> None:
        self._touched.add(pool)
        if pool in self._retired:
            self._commits.note_pool(
                pool
            )  # nothing is decided in it, but its calls' budgets are to be written
        self._woken.set()

    async def _until_due(self) -> None:
        """Wait until there may be something to do."""
        now = self._clock()
        due = min(self._wakes.values(), default=now + TIDYING)
        settles = self._commits.settles_at()
        if settles is not None:
            due = min(due, settles)
        if not self._woken.is_set() and due > now:
            with suppress(TimeoutError):
                async with asyncio.timeout(due - now):
                    await self._woken.wait()
        self._woken.clear()

    def _decide(self) -> _Due:
        now = self._clock()
        due = _Due()
        ready = self._touched | {name for name, at in self._wakes.items() if at <= now}
        self._touched = set()
        for name in ready & self._pools.keys():
            self._decide_in(name, due, now)
        if self._lease_due:
            self._lease_due = False
            due.grants = self._grants(now)
        if now - self._tidied_at > TIDYING:
            self._tidy(now)
        return due

    def _decide_in(self, name: str, due: _Due, now: float) -> None:
        pool = self._pools[name]
        for decision in pool.decisions(now):
            if isinstance(decision, Refusal):
                self._refuse(name, decision, now)
            else:
                self._admit(name, decision, now)
                due.admissions.append(decision)
        wake = pool.wakes_at()
        if wake is None:
            self._wakes.pop(name, None)
        else:
            self._wakes[name] = wake
        self._commits.note_pool(name)
        if not pool.contended():
            self._contended.discard(name)
        elif name not in self._contended:
            self._contended.add(name)
            # What is leased to it is void from now on.
            self._lease_due = True

    def _admit(self, pool: str, admission: Admission, now: float) -> None:
        self._live[admission.call_id] = _Live(pool, now)
        waiting = self._waiting.get(admission.call_id)
        if waiting is not None:
            waiting.decided = True

    def _refuse(self, pool: str, refusal: Refusal, now: float) -> None:
        waiting = self._waiting.pop(refusal.call_id, None)
        if waiting is None:
            return
        self._metrics.refused(pool, refusal.reason, now - waiting.since)
        if not waiting.decision.done():
            waiting.decision.set_result(refusal)

    def _tell(self, due: _Due) -> None:
        """Tell what was decided, which is written now."""
        if not self._leads():
            raise Lapsed
        now = self._clock()
        for admission in due.admissions:
            waiting = self._waiting.pop(admission.call_id, None)
            if waiting is None or waiting.decision.done():
                continue  # who leaves has the call withdrawn
            self._metrics.admitted(waiting.call.pool, now - waiting.since)
            waiting.decision.set_result(admission)
        if due.grants is not None:
            self._lease(due.grants)

    def _grants(self, now: float) -> Grants:
        granted: dict[str, list[Grant]] = {}
        for name, pool in self._pools.items():
            for holder, grant in pool.grants(now).items():
                granted.setdefault(holder, []).append(grant)
                self._commits.note_pool(name)
        return {holder: tuple(each) for holder, each in granted.items()}

    def _settles(self, now: float) -> bool:
        """Whether it is time to write what nobody waits for."""
        settles = self._commits.settles_at()
        return settles is not None and now >= settles

    async def _write(self) -> float:
        """Write all that changed; return how many seconds it took. Raises Lapsed if it cannot be written."""
        try:
            return await self._commits.write(self._pools)
        except TimeoutError:
            raise Lapsed from None

    def _open(self, pool: ModelPool, now: float) -> None:
        retired = self._retired.pop(pool.name, None)
        state = self._states.get(pool.name) if retired is None else retired.state()
        self._pools[pool.name] = PoolScheduler(pool, self._ledger, state, now=now)
        for flight in state.flights if state is not None else ():
            self._live[flight.call_id] = _Live(pool.name, now)
        self._touch(pool.name)

    def _retire(self, name: str) -> None:
        """A pool is not declared any more; should it come back, it goes on from where it was."""
        now = self._clock()
        self._retired[name] = pool = self._pools.pop(name)
        self._wakes.pop(name, None)
        self._contended.discard(name)
        for waiting in [each for each in self._waiting.values() if each.call.pool == name]:
            # Though it be decided: nobody was told.
            pool.withdraw(waiting.call.id, now)
            self._live.pop(waiting.call.id, None)
            self._refuse(name, _unknown(waiting.call), now)
        self._touch(name)

    def _tidy(self, now: float) -> None:
        self._tidied_at = now
        if now - self._looked_at > FORGETTING:
            self._looked_at = now
            self._commits.note_expired(self._ledger.expired(now))
        for call_id, live in list(self._live.items()):
            if live.heard < now - LOST_AFTER:
                self._lose(call_id, live.pool, now)
        for name in self._retired.keys() - {each.pool for each in self._live.values()}:
            self._states[name] = self._retired.pop(name).state()
            del self._specs[name]

    def _lose(self, call_id: str, pool: str, now: float) -> None:
        del self._live[call_id]
        scheduler = self._scheduler(pool)
        if scheduler is not None:
            logger.info("nobody tells of call %s to pool %r any more: it counts as over", call_id, pool)
            scheduler.lost(call_id, now)
            self._touch(pool)


def _unknown(call: Call) -> Refusal:
    return Refusal(call.id, Reason.UNKNOWN_MODEL, f"there is no pool {call.pool!r} of models any more")
