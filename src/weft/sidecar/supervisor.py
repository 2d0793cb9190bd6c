"""One sidecar from start to end: Envoy, registration, the agent's program, its health, and back."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
import uuid
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version

from prometheus_client import CollectorRegistry

from weft.aio.cancellation import end
from weft.aio.children import Child
from weft.aio.guard import Guard
from weft.errors import MeshError
from weft.model.agent import Instance, Status
from weft.model.node import Inbound, Node
from weft.model.offer import Offer
from weft.model.subjects import identity_subject
from weft.model.traffic_report import caller_of
from weft.registry.offers import Offers
from weft.registry.registry import Registry
from weft.sidecar.agent_card import read_agent_card
from weft.sidecar.attempts import persistently
from weft.sidecar.bootstrap import (
    INBOUND_LISTENER,
    OUTBOUND_LISTENER,
    OUTSIDE_LISTENER,
    bootstrap,
    sessions_socket,
)
from weft.sidecar.denial_audit import DenialAudit
from weft.sidecar.departure import Departure, DrainServer
from weft.sidecar.drain import drain
from weft.sidecar.drain_wish import drain_wanted
from weft.sidecar.enrolment import enrol, new_identity
from weft.sidecar.envoy import Envoy, admin_socket
from weft.sidecar.exit_codes import ExitCode, exit_code
from weft.sidecar.health import Health, HealthMonitor, check_agent
from weft.sidecar.identity import SidecarIdentity
from weft.sidecar.kubelet_answers import KubeletAnswers
from weft.sidecar.mcp_reading import McpReader
from weft.sidecar.mcp_sessions import sessions_kept
from weft.sidecar.metrics import SidecarMetrics, Vitals
from weft.sidecar.metrics_server import AgentMetrics, MetricsServer
from weft.sidecar.offering import AgentReader, Offering, offered_capabilities
from weft.sidecar.plan import Plan, make_plan
from weft.sidecar.program import check_command, program_command, start_program
from weft.sidecar.registration import Registration
from weft.sidecar.settings import SidecarSettings
from weft.sidecar.shutdown import Shutdown, ShutdownRequested, Urgency, signals
from weft.sidecar.store_connection import StoreConnection
from weft.sidecar.system_roots import system_roots
from weft.sidecar.traffic_reading import TrafficReading
from weft.sidecar.work import SidecarWork

logger = logging.getLogger(__name__)

_RELEASE_TIMEOUT = 3.0
_LEAVE_TIMEOUT = 1.0
_ENVOY_DOWN = "its Envoy is not ready"


async def run_sidecar(settings: SidecarSettings) -> int:
    """Run one sidecar until its program ends or a signal stops it; return the exit code (see `ExitCode`).

    The first SIGTERM or SIGINT drains, the second does not wait for calls, the third kills the program.
    SIGHUP, SIGUSR1 and SIGUSR2 go to the program; without one SIGHUP asks to stop. Must be called in the main
    thread. Nothing that was started outlives it. What is wrong with the mesh is logged, and told by the exit
    code.
    """
    try:
        if settings.command:
            check_command(settings.command, settings.environ)
        async with Guard() as guard:
            with ExitStack() as ports:
                return await Sidecar(settings, make_plan(settings, guard, ports), guard).run()
    except (MeshError, ExceptionGroup) as error:
        cause = _mesh_error(error)
        if cause is None:
            raise
        logger.error("%s", cause.detail)  # noqa: TRY400  # the text says it all; a traceback would hide it
        return exit_code(cause)


def _mesh_error(error: BaseException) -> MeshError | None:
    """The first MeshError in an exception or group of them, if there is nothing else in it."""
    if isinstance(error, BaseExceptionGroup):
        causes = [_mesh_error(each) for each in error.exceptions]
        return causes[0] if all(causes) else None
    return error if isinstance(error, MeshError) else None


class Sidecar:
    """One sidecar that has its ports and its directory."""

    def __init__(self, settings: SidecarSettings, plan: Plan, guard: Guard) -> None:
        self._settings = settings
        self._plan = plan
        self._guard = guard
        self._shutdown = Shutdown()
        self._identity = new_identity(settings, plan.directory)
        self._denials = _denials(plan.node, self._identity)
        self._store = self._new_store()
        self._envoy = self._new_envoy()
        self._envoy_ready = False
        self._health = Health()
        self._first_healthy = asyncio.Event()
        self._started = False
        self._departure = Departure(self._drain_all)
        self._registration: Registration | None = None
        self._program: Child | None = None
        self._traffic = TrafficReading(self._envoy, self._store.connected, lambda: self._identity.id)
        self._metrics = CollectorRegistry()
        self._work = self._new_work()
        self._working = False
        self._offering: Offering | None = None
        self._reading: asyncio.Task[None] | None = None
        self._background: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """Start everything, wait for the end, stop everything in reverse; return the exit code.

        Raises MeshError, alone or in a group, where it could not start or go on.
        """
        self._plan.make_way_for_envoy()
        async with AsyncExitStack() as stack:
            stack.enter_context(signals(self._shutdown.request, self._forward))
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            try:
                return await self._live(tasks, stack)
            finally:
                await self._end()

    async def _live(self, tasks: asyncio.TaskGroup, stack: AsyncExitStack) -> int:
        try:
            await self._shutdown.unless(Urgency.DRAIN, self._start(tasks, stack))
            return await self._shutdown.unless(Urgency.DRAIN, self._program_end())
        except ShutdownRequested:
            await self._drain()
            return await self._stop_program()

    # Starting

    async def _start(self, tasks: asyncio.TaskGroup, stack: AsyncExitStack) -> None:
        await enrol(self._identity, self._settings)
        self._background.append(tasks.create_task(self._identity.run(self._store.renew), name="identity"))
        follow = self._store.follow_identity()
        self._background.append(tasks.create_task(follow, name="follow the identity"))
        await self._show_metrics(stack)
        inbound = self._plan.node.inbound
        if inbound is not None:
            socket = sessions_socket(self._plan.directory, inbound)
            await stack.enter_async_context(sessions_kept(inbound.agent, self._settings.mcp_path, socket))
        tasks.create_task(self._envoy.run(), name="envoy")
        await self._envoy.wait_until_ready()
        stack.push_async_callback(self._store.aclose)
        self._background.append(tasks.create_task(self._traffic.run(), name="traffic"))
        if inbound is not None:
            self._registration = await self._register(inbound)
            self._background.append(tasks.create_task(self._registration.run(), name="registration"))
            wish = self._leave_when_told()
            self._background.append(tasks.create_task(wish, name="wish to drain"))
        audit = self._denials.run(self._store.connected)
        self._background.append(tasks.create_task(audit, name="audit"))
        await self._start_program()
        if inbound is not None:
            self._background.append(tasks.create_task(self._monitor(inbound).run(), name="health"))
            self._reading = tasks.create_task(self._keep_offer(inbound), name="offer")
            self._background.append(self._reading)
        if self._work is not None:
            self._background.append(tasks.create_task(self._begin_work(self._work), name="work"))
        await self._take_wishes(stack)
        self._started = True

    async def _take_wishes(self, stack: AsyncExitStack) -> None:
        if self._settings.drain_socket is not None:
            server = DrainServer(self._departure)
            stack.push_async_callback(server.aclose)
            await server.listen(self._settings.drain_socket)

    def _new_store(self) -> StoreConnection:
        settings = self._settings
        name = f"sidecar {self._plan.node.key}"
        return StoreConnection(
            self._identity, settings.nats_servers, name=name, timeout=settings.start_timeout
        )

    def _new_work(self) -> SidecarWork | None:
        inbound = self._plan.node.inbound
        if inbound is None or not (self._settings.consumes or self._settings.subscribes):
            return None
        return SidecarWork(
            self._settings, inbound.agent, self._identity, self._store.connected, self._metrics
        )

    def _new_envoy(self) -> Envoy:
        settings, plan = self._settings, self._plan
        config = bootstrap(
            plan.node,
            xds=settings.xds_addresses,
            admin_socket=admin_socket(plan.directory),
            max_connections=settings.max_connections,
            system_roots=system_roots(os.environ),
            trust_domain=self._identity.trust_domain,
            mcp_sessions=sessions_socket(plan.directory, plan.node.inbound),
        )
        listeners = {OUTBOUND_LISTENER} | ({INBOUND_LISTENER} if plan.node.inbound else set())
        listeners |= {OUTSIDE_LISTENER} if plan.node.outside else set()
        return Envoy(
            config,
            plan.directory,
            listeners=frozenset(listeners),
            guard=self._guard,
            settings=settings,
            changed=self._envoy_changed,
            relay_output=self._denials.relay,
        )

    async def _show_metrics(self, stack: AsyncExitStack) -> None:
        if self._plan.metrics_port is None:
            return
        inbound = self._plan.node.inbound
        agent = None
        if inbound is not None:
            agent = AgentMetrics(inbound.agent, inbound.protocol, self._is_healthy)
        kubelet = KubeletAnswers(
            None if inbound is None else inbound.agent,
            self._settings.probes,
            unready=self._unready,
            departure=self._departure,
        )
        server = MetricsServer(self._own_metrics, agent, self._metrics, kubelet)
        stack.push_async_callback(server.aclose)
        await server.listen(self._plan.metrics_port.take())

    async def _own_metrics(self) -> SidecarMetrics:
        """As they are now."""
        vitals = Vitals(
            in_flight=await self._envoy.in_flight(),
            healthy=None if self._plan.node.inbound is None else self._is_healthy(),
            certificate_expires_at=self._identity.expires_at,
            envoy_restarts=self._envoy.restarts,
            version=version("weft"),
        )
        return SidecarMetrics(caller_of(identity_subject(self._identity.id)), self._traffic.traffic, vitals)

    def _unready(self) -> str:
        """Why this sidecar is not ready; empty if it is."""
        if self._departure.begun:
            return "it drains"
        if not self._started:
            return "it starts"
        return "" if self._envoy_ready else _ENVOY_DOWN

    def _is_healthy(self) -> bool:
        return self._health.status is Status.HEALTHY

    async def _register(self, inbound: Inbound) -> Registration:
        settings = self._settings
        registration = Registration(
            await self._open_registry(),
            _instance(settings, inbound),
            in_flight=self._envoy.in_flight,
            renew_interval=settings.renew_interval,
        )
        await persistently(registration.register, what="registering", timeout=settings.start_timeout)
        return registration

    async def _open_registry(self) -> Registry:
        limit = self._settings.start_timeout
        store = await persistently(self._store.connected, what="connecting to NATS", timeout=limit)
        open_registry = partial(Registry.open, store, lease_ttl=self._settings.lease_ttl)
        return await persistently(open_registry, what="opening the registry", timeout=limit)

    async def _start_program(self) -> None:
        settings = self._settings
        if not settings.command:
            return
        if self._plan.agent_port is not None:
            self._plan.agent_port.release()
        self._program = await start_program(
            program_command(settings.command, settings.protocol),
            settings.environ,
            node=self._plan.node,
            identity=self._identity.directory,
            trust_domain=self._identity.trust_domain,
            guard=self._guard,
        )

    async def _begin_work(self, work: SidecarWork) -> None:
        """Take tasks and events once the agent is there to do something about them."""
        await self._first_healthy.wait()
        await work.start()
        self._working = True

    async def _keep_offer(self, inbound: Inbound) -> None:
        """Tell the mesh what the agent offers, once it is there to be asked."""
        await self._first_healthy.wait()
        offers = await Offers.open(await self._store.connected())
        again = asyncio.Event()
        reader = AgentReader(
            inbound.protocol,
            mcp_path=self._settings.mcp_path,
            read_card=partial(read_agent_card, inbound.agent),
            open_mcp=partial(McpReader, inbound.agent),
            changed=again.set,
        )
        changed = partial(self._offer_changed, inbound)
        self._offering = Offering(offers, self._plan.node.key, reader.read, again=again, changed=changed)
        async with reader:
            await self._offering.run()

    def _offer_changed(self, inbound: Inbound, offer: Offer) -> None:
        if self._registration is not None:
            declared = self._settings.capabilities
            self._registration.offer(offered_capabilities(offer, inbound.protocol, declared))

    def _monitor(self, inbound: Inbound) -> HealthMonitor:
        health = self._settings.health
        check = partial(check_agent, inbound.agent, inbound.protocol, health)
        return HealthMonitor(check, health, changed=self._health_changed)

    # Running

    async def _program_end(self) -> int:
        if self._program is None:
            await asyncio.Event().wait()  # which nobody sets: only a signal ends it
            return ExitCode.OK
        code = await self._program.exited()
        logger.info("the program ended with exit code %d", code)
        return code

    def _forward(self, number: int) -> None:
        if self._program is not None:
            self._program.send(number)
        elif number == signal.SIGHUP:  # the terminal is gone, and with it whoever wanted this sidecar
            self._shutdown.request(number)

    async def _leave_when_told(self) -> None:
        """Stop as upon SIGTERM once an operator wants this instance drained."""
        await drain_wanted(self._store.connected, self._plan.node.key)
        if self._departure.begun:  # it would be a second request, which hurries
            return
        logger.info("an operator wants %s drained", self._plan.node.key)
        if self._settings.drain_socket is not None:
            # Whoever stops the program stops this, too; started anew, it would take calls again.
            await self._departure.over()
            return
        self._shutdown.request(signal.SIGTERM)

    def _envoy_changed(self, ready: bool) -> None:
        self._envoy_ready = ready
        self._report()

    def _health_changed(self, health: Health) -> None:
        if health.status is not self._health.status:
            _log_status(self._plan.node.key, health)
        self._health = health
        if health.status is Status.HEALTHY:
            self._first_healthy.set()
        self._offer_work()
        self._report()

    def _offer_work(self) -> None:
        """Have tasks and events for an agent that is well, and none for one that is not."""
        if self._work is None:
            return
        if self._health.status is Status.HEALTHY:
            self._work.resume()
        else:
            self._work.pause()

    def _report(self) -> None:
        """Publish what callers must know: an agent behind a dead Envoy is of no use to them."""
        if self._registration is None or self._departure.begun:
            return
        if self._health.status is Status.HEALTHY and not self._envoy_ready:
            self._registration.report(Status.UNHEALTHY, _ENVOY_DOWN)
        else:
            self._registration.report(self._health.status, self._health.reason)

    # Stopping

    async def _drain(self) -> None:
        if self._registration is None:
            return
        try:
            await self._shutdown.unless(Urgency.HURRY, self._departure.over())
        except ShutdownRequested:
            logger.warning("asked again to stop: not waiting for the calls in flight")
            await self._departure.give_up()

    async def _drain_all(self) -> None:
        """Calls, tasks and events at the same time: all have the same time to end."""
        settings, registration = self._settings, self._registration
        if registration is None:
            return
        calls = drain(registration, self._envoy, grace=settings.drain_grace, timeout=settings.drain_timeout)
        if self._work is None or not self._working:
            await calls
            return
        self._work.drain()
        await asyncio.gather(calls, self._work.drained(settings.drain_timeout))

    async def _stop_program(self) -> int:
        if self._program is None:
            return 128 + self._shutdown.signal if self._settings.command else ExitCode.OK
        await self._read_no_more()
        # A program that only calls gets the signal that was meant for it.
        number = self._shutdown.signal if self._plan.node.inbound is None else signal.SIGTERM
        stop = self._program.stop(self._settings.stop_timeout, number)
        try:
            return await self._shutdown.unless(Urgency.NOW, stop)
        except ShutdownRequested:
            return await self._program.stop(0)

    async def _read_no_more(self) -> None:
        """Close the stream on which an MCP server tells of changes: some servers end no sooner than that."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,), timeout=_LEAVE_TIMEOUT)

    async def _end(self) -> None:
        """Leave the registry before anything else, so that no more calls come."""
        await self._departure.give_up()
        ending = asyncio.create_task(end(self._background), name="end")
        await asyncio.sleep(0)  # by then they are cancelled
        if self._work is not None:
            await self._work.aclose()
        if self._registration is not None:
            await _release(self._registration)
        if self._offering is not None:
            await _withdraw(self._offering)
        if self._program is not None:
            await self._program.stop(self._settings.stop_timeout)
        await self._traffic.finish(_LEAVE_TIMEOUT)
        await self._envoy.stop()
        await ending


def _log_status(name: str, health: Health) -> None:
    if health.status is Status.HEALTHY:
        logger.info("%s is healthy", name)
    else:
        logger.warning("%s is %s: %s", name, health.status, health.reason)


async def _release(registration: Registration) -> None:
    try:
        async with asyncio.timeout(_RELEASE_TIMEOUT):
            await registration.release()
    except (MeshError, TimeoutError) as error:
        reason = str(error) or f"NATS did not answer within {_RELEASE_TIMEOUT:g} s"
        logger.warning("the registration could not be withdrawn and will lapse: %s", reason)


async def _withdraw(offering: Offering) -> None:
    try:
        async with asyncio.timeout(_RELEASE_TIMEOUT):
            await offering.withdraw()
    except (MeshError, TimeoutError) as error:
        # Without its instance it counts for nothing, and it lapses.
        logger.info("what the agent offered could not be withdrawn: %s", error)


def _denials(node: Node, identity: SidecarIdentity) -> DenialAudit:
    callee = node.inbound.type if node.inbound is not None else node.id
    return DenialAudit(callee=callee, observer=node.key, identity=lambda: identity.id)


def _instance(settings: SidecarSettings, inbound: Inbound) -> Instance:
    return Instance(
        id=settings.id,
        type=inbound.type,
        endpoint=str(replace(inbound.listen, host=settings.advertise_host)),
        status=Status.STARTING,
        capabilities=settings.capabilities,
        version=settings.version,
        labels=settings.labels,
        locality=settings.locality,
        weight=settings.weight,
        started_at=time.time(),
        reason=Health().reason,
        incarnation=settings.incarnation or uuid.uuid4().hex,
    )
