"""The scheduling of calls to models, as one replica of the control plane takes part in it: put together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import grpc
from prometheus_client import CollectorRegistry

from weft.aio.cancellation import end
from weft.aio.generation import Generation
from weft.controlplane.access_logs import LogReader
from weft.controlplane.llm.asking import Asking
from weft.controlplane.llm.call import Attempt, Call, Decision, Ended, Reason, Refusal
from weft.controlplane.llm.declared import Declared, declared_of
from weft.controlplane.llm.kept_records import Superseded
from weft.controlplane.llm.leadership import RENEWAL, TTL, Leadership
from weft.controlplane.llm.leased_log import LeasedLog
from weft.controlplane.llm.leases import Leases
from weft.controlplane.llm.metering import Metering
from weft.controlplane.llm.metrics import LlmMetrics
from weft.controlplane.llm.peers import Peer, Peers
from weft.controlplane.llm.pool_rights import LabelsOf, PoolRights
from weft.controlplane.llm.records import Leader
from weft.controlplane.llm.reporting import Reporting
from weft.controlplane.llm.reports import broken_off, call_under_way, ended_call, failed_attempt, still_runs
from weft.controlplane.llm.standing import Standing
from weft.controlplane.llm.state_records import StateBuckets
from weft.controlplane.llm.steady import steady_clock
from weft.controlplane.llm.term import Lapsed, Term
from weft.errors import MeshError
from weft.model.llm_lease import Lease
from weft.model.llm_wire import ACCESS_LOG, ATTEMPT_LOG
from weft.model.model_pool import ModelPool
from weft.model.node import Address, parse_address
from weft.model.spiffe import agent_id, parse_spiffe_id
from weft.registry.view import ChangeKind, FellBehind, View
from weft.resources.view import ResourceView
from weft.store.bucket import Store

logger = logging.getLogger(__name__)

HOLD: Final = 10.0
"""Seconds for which a call is kept that nobody schedules, before it is refused."""

HOLD_REPORTS: Final = 60.0
"""Seconds for which what sidecars tell waits while nobody schedules: a call whose end is lost keeps its place
until it is given up."""

MAX_REMEMBERED: Final = 10_000
"""Ends of calls that are remembered for the next term: the last ones of this may not have been written."""

ROUND: Final = 1.0
"""Seconds between two rounds of leases, figures and rows of usage."""

GONE_AFTER: Final = 5.0
"""Seconds after which the calls of an instance that is gone are taken to be over."""

RETRY: Final = 0.2
"""Seconds after which it is tried again to begin a term that could not be begun."""


class Configured(Protocol):
    """What sidecars are configured by."""

    def update_leases(self, leases: Mapping[str, Lease]) -> None:
        """These are the leases now, by holder."""
        ...

    def update_scheduler(self, scheduler: Address | None) -> None:
        """There is the replica that schedules; None: there was none ever."""
        ...


@dataclass(frozen=True, slots=True)
class Replica:
    """Who this replica is."""

    name: str
    address: str
    """`host:port` at which sidecars reach it by gRPC."""
    trust_domain: str
    revoked: Callable[[str], bool]
    """Asked by SPIFFE ID."""
    labels_of: LabelsOf = lambda _: {}
    """What is attested of who asks, for AccessPolicies that go by it."""
    lead_ttl: float = TTL
    """Seconds after which it schedules no more if it could not say that it still does."""


class LlmScheduling:
    """Asks and reports of sidecars, leadership, leases, figures. Open it with `open`; have `run` run."""

    def __init__(
        self,
        parts: _Parts,
        declared: ResourceView,
        instances: View,
        replica: Replica,
        metrics: LlmMetrics,
    ) -> None:
        self._leadership = parts.leadership
        self._leases = parts.leases
        self._buckets = parts.buckets
        self.standing = parts.standing
        """How calls stand and what was used, by what the leader last told."""
        self._resources = declared
        self._instances = instances
        self._replica = replica
        self._metrics = metrics
        self._declared = Declared()
        self._seen = -1
        self._term: Term | None = None
        self._metering = Metering(parts.standing, metrics, replica=replica.name)
        self._ended: deque[Ended] = deque(maxlen=MAX_REMEMBERED)
        self._news = Generation()
        peers = Peers(replica.trust_domain, replica.revoked)
        self._rights = PoolRights(declared, replica.labels_of, replica.trust_domain)
        self._asking = Asking(self, peers)
        self._reporting = Reporting(self, peers)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        store: Store,
        declared: ResourceView,
        instances: View,
        replica: Replica,
        metrics: CollectorRegistry,
    ) -> AsyncIterator[LlmScheduling]:
        """Within the context, `replica`'s part in the scheduling over `store`. Raises Unavailable."""
        opening = Leadership.open(store, replica=replica.name, address=replica.address, ttl=replica.lead_ttl)
        async with opening as leadership, Leases.open(store, lambda: bool(leadership.term)) as leases:
            parts = _Parts(leadership, leases, await StateBuckets.open(store), await Standing.open(store))
            yield cls(parts, declared, instances, replica, LlmMetrics(metrics))

    @property
    def services(self) -> Sequence[grpc.GenericRpcHandler[bytes, bytes]]:
        """What the gRPC server that sidecars know is to serve, too."""
        return [self._asking.handler()]

    @property
    def logs(self) -> Mapping[str, LogReader]:
        """The access logs that it reads, by name."""
        return {ACCESS_LOG: self._reporting, ATTEMPT_LOG: self._reporting}

    @property
    def term(self) -> Term | None:
        """What is scheduled here; None while another replica does."""
        return self._term

    @property
    def leads(self) -> bool:
        """Whether this replica schedules at this moment."""
        return self._term is not None and bool(self._leadership.term)

    async def run(self, configured: Configured) -> None:
        """Take part, for ever; sidecars hear through `configured` of their leases, and of who schedules."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for name, work in self._work(configured).items():
                    tasks.create_task(_run(work), name=f"models: {name}")
        finally:
            await self._end_in_order()

    # What sidecars ask, and tell.

    def pool(self, name: str) -> ModelPool | None:
        """The pool of that name, if it is declared."""
        return self._current().pools.get(name)

    def denial(self, sidecar: str, pool: str) -> str | None:
        """Why a sidecar, by its SPIFFE ID, may not use `pool`; None: it may."""
        return self._rights.denial(sidecar, pool)

    async def start(self, call: Call, holder: str) -> Decision:
        """Whether and where `call` starts; returns when it is time. When cancelled, the call is given up."""

        def ask(term: Term) -> asyncio.Future[Decision]:
            term.demand(call.pool, holder, call.prompt_tokens + (call.max_output_tokens or 0))
            return term.ask(_by_clock_of(term, call))

        return await self._decided(call, ask)

    async def attempt(self, call: Call, provider: str) -> Decision:
        """Whether `call`, which failed elsewhere, may go to `provider`; likewise."""
        return await self._decided(call, lambda term: term.retry(call, provider))

    async def ready(self) -> bool:
        """Wait until this replica schedules; False if another does."""
        return await self._leading(HOLD_REPORTS) is not None

    def calls_logged(self, entries: Iterable[Any], peer: Peer) -> None:
        """A sidecar tells of calls that are over, or still run."""
        term = self._term
        if term is None:
            return
        leased = LeasedLog(peer, term.specs, term.now)
        for entry in entries:
            if not leased.take(entry):
                self._call_logged(term, entry, peer)
        for ends in leased.ends:
            if self.denial(peer.sidecar, ends.pool) is None:
                term.demand(ends.pool, peer.holder, ends.estimated_tokens, ends.calls)
                term.ended_on_leases(ends)
                self._metering.count_all(term, ends)

    def _call_logged(self, term: Term, entry: Any, peer: Peer) -> None:
        if still_runs(entry):
            call_id = call_under_way(entry, peer)
            if call_id is not None:
                term.still_runs(call_id)
            return
        now = term.now
        self._attempt_failed(broken_off(entry, term.specs, now), peer)
        ended = ended_call(entry, peer, term.specs, now)
        # Without an id and without a provider it was refused, or never left the sidecar.
        if ended is None or (ended.call_id is None and ended.provider is None):
            return
        if ended.call_id is None and self.denial(peer.sidecar, ended.pool) is not None:
            return
        if ended.call_id is None:
            term.demand(ended.pool, peer.holder, ended.estimated_tokens)
        if term.ended(ended):
            if ended.call_id is not None:
                self._ended.append(ended)
            self._metering.count(term, ended)

    def attempt_logged(self, entry: Any, peer: Peer) -> None:
        """A sidecar tells that a provider failed."""
        if self._term is not None:
            self._attempt_failed(failed_attempt(entry, self._term.specs, self._term.now), peer)

    def _attempt_failed(self, attempt: Attempt | None, peer: Peer) -> None:
        if attempt is None or self.denial(peer.sidecar, attempt.pool) is not None:
            return
        if self._term is not None:
            self._metrics.attempt_failed(attempt)
            self._term.attempt_failed(attempt)

    # Waiting for decisions.

    async def _decided(self, call: Call, put: Callable[[Term], asyncio.Future[Decision]]) -> Decision:
        while True:
            term = await self._leading(HOLD)
            if term is None:
                return _not_scheduled(call)
            future = put(term)
            try:
                return await future
            except Lapsed:
                continue
            except asyncio.CancelledError:
                term.leave(call)
                raise

    async def _leading(self, limit: float) -> Term | None:
        """The term, once this replica leads; None if another does, or nobody for `limit` seconds."""
        if self._term is not None:
            return self._term
        loop = asyncio.get_running_loop()
        asked, began = self._leadership.leader, loop.time()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while self._term is None:
                    await self._news.later_than(self._news.number)
                    if self._alive_elsewhere(asked, loop.time() - began):
                        return None
        return self._term

    def _alive_elsewhere(self, known: Leader | None, waited: float) -> bool:
        """Whether another replica leads, and did not just die; `known` is who led `waited` seconds ago."""
        leader = self._leadership.leader
        if leader is None or leader == known or self._leadership.vacant or self._leadership.mine(leader):
            return False
        # The last sign of life of one that has died may have been on its way.
        return waited > RENEWAL or known is None or leader.term != known.term

    # Leading.

    def _work(self, configured: Configured) -> Mapping[str, Awaitable[None]]:
        return {
            "lead": self._leadership.run(),
            "schedule": self._schedule(),
            "follow the leader": self._follow(configured),
            "publish leases": self._leases.publish(),
            "follow leases": self._leases.follow(configured),
            "follow pools": self._follow_pools(),
            "follow instances": self._follow_instances(),
            "rounds": self._rounds(),
        }

    async def _schedule(self) -> None:
        while True:
            seen = self._leadership.generation
            if not self._leadership.term:
                await self._leadership.changed_since(seen)
                continue
            try:
                await self._lead(self._leadership.term)
            except Lapsed:
                continue
            except Superseded as error:
                logger.warning("this replica reads again what was decided about models: %s", error.detail)
            except MeshError as error:
                logger.warning("calls to models cannot be scheduled: %s", error.detail)
            await asyncio.sleep(RETRY)

    async def _lead(self, name: str) -> None:
        """Schedule, until this replica leads no more."""

        def leads() -> bool:
            return self._leadership.term == name

        term = await Term.begin(
            self._buckets,
            name,
            self._current(),
            self._metrics,
            leads=leads,
            lease=self._leases.grant,
            clock=steady_clock(),
            ended=self._ended,
        )
        self._ended.clear()
        await self._metering.begin()
        self._note_gone(term)
        self._term = term
        self._metrics.lead(True)
        self._news.advance()
        work = {
            asyncio.ensure_future(term.run()),
            asyncio.ensure_future(self._lapse(name)),
        }
        try:
            ended, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for each in ended:
                each.result()
        finally:
            self._term = None
            self._metrics.lead(False)
            term.close()
            await end(work)

    async def _lapse(self, name: str) -> None:
        """Raise Lapsed when the term is over."""
        while self._leadership.term == name:
            await self._leadership.changed_since(self._leadership.generation)
        raise Lapsed

    async def _follow(self, configured: Configured) -> None:
        """Have sidecars hear of who schedules, and who waits here of whether somebody does."""
        told: str | None = None
        while True:
            heard = self._leadership.heard
            leader = self._leadership.leader
            if leader is not None and leader.address != told:
                told = leader.address
                configured.update_scheduler(parse_address(leader.address))
            if leader is not None and not self._leadership.mine(leader) and not self._leadership.vacant:
                self._reporting.hang_up()
            self._news.advance()
            await self._leadership.heard_since(heard)

    async def _follow_pools(self) -> None:
        while True:
            seen = self._resources.generation
            if self._term is not None:
                self._term.reconfigure(self._current())
            await self._resources.changed_since(seen)

    async def _follow_instances(self) -> None:
        while True:
            with suppress(FellBehind):
                async with self._instances.subscribe() as batches:
                    async for batch in batches:
                        for change in batch:
                            if change.kind is ChangeKind.REMOVED:
                                self._forget_later(change.instance.key)

    def _forget_later(self, key: str) -> None:
        asyncio.get_running_loop().call_later(GONE_AFTER, self._forget, key)

    def _forget(self, key: str) -> None:
        if self._term is not None and key not in self._instances.instances:
            agent_type, _, instance = key.partition(".")
            self._term.sidecar_gone(str(agent_id(self._replica.trust_domain, agent_type, instance)))

    def _note_gone(self, term: Term) -> None:
        """Sidecars may have gone while nobody led."""
        for sidecar in term.sidecars():
            match parse_spiffe_id(sidecar).segments:
                case ("agent", agent_type, instance):
                    if f"{agent_type}.{instance}" not in self._instances.instances:
                        self._forget_later(f"{agent_type}.{instance}")

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(ROUND)
            term = self._term
            if term is None or not self.leads:
                continue
            term.grant()
            try:
                async with asyncio.timeout(ROUND * 5):
                    await self._metering.tell(term)
            except (MeshError, TimeoutError) as error:
                logger.debug("figures of calls to models cannot be written: %s", error)

    async def _end_in_order(self) -> None:
        """Write down what was used, while nobody else can have begun to."""
        if self._leadership.term:
            with suppress(MeshError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._metering.write_usage()

    def _current(self) -> Declared:
        if self._seen != self._resources.generation:
            self._seen = self._resources.generation
            self._declared = declared_of(self._resources.resources.values())
        return self._declared


@dataclass(frozen=True, slots=True)
class _Parts:
    leadership: Leadership
    leases: Leases
    buckets: StateBuckets
    standing: Standing


async def _run(work: Awaitable[None]) -> None:
    await work


def _by_clock_of(term: Term, call: Call) -> Call:
    """The call with its deadline, which is by the clocks of machines, by that of `term`."""
    if call.deadline is None:
        return call
    return replace(call, deadline=call.deadline - time.time() + term.now)


def _not_scheduled(call: Call) -> Refusal:
    detail = (
        "no replica of the control plane that was asked schedules calls to models now: try again in a second"
    )
    return Refusal(call.id, Reason.NOT_SCHEDULED, detail, retry_after=1.0)
