"""A whole mesh on one machine: NATS, control plane, door and agents as child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Self

from weft.aio.backoff import backoff
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.errors import Unavailable
from weft.local.agent_run import AgentRun
from weft.local.commands import DOOR, control_command, door_command, sidecar_command
from weft.local.control import ControlApi
from weft.local.default_models import (
    SIMULATOR,
    declares_models,
    default_models,
    others_declared,
    remove_default,
    replace_default,
    simulator_command,
    simulator_environment,
)
from weft.local.home import MeshHome
from weft.local.instances import Instances
from weft.local.logs import LineListener, ProcessLog
from weft.local.nats import nats_command, nats_serves
from weft.local.ports import check_free, free_port
from weft.local.reconciler import Reconciler
from weft.local.service import Service, ServiceSpec
from weft.model.local_state import LOOPBACK, ChildState, MeshPorts, MeshState
from weft.model.manifest import parse_manifest

START_TIMEOUT = 60.0
"""Seconds that NATS, the control plane and the door together have to start, and then the agents."""

GUARD_GRACE = 5.0
"""Seconds that orphans have, after this process was killed, to stop in their own way."""

_DECLARING_LIMIT = 10.0
"""Seconds for which what is declared is declared again where the store cannot take it yet."""

_TRUST_INTERVAL = 1.0
"""Seconds between two looks at the mesh's roots."""

ChildListener = Callable[[ChildState], None]
"""Hears of every step of every process: waiting, starting, ready, restarting, stopping, stopped."""


class LocalMesh:
    """A mesh of child processes. Use as an async context manager: entered, it takes calls.

    NATS, control plane and door are up and the manifest is applied when the context is entered; the agents
    it declares are being started then (`wait_healthy`). What ends is started again, what is declared anew is
    reconciled. Leaving the context drains the agents and stops everything; if this process is killed, a guard
    ends the others.
    """

    def __init__(
        self,
        home: Path,
        *,
        ports: MeshPorts,
        manifest: str = "",
        manifest_file: str = "mesh.yaml",
        working_directory: Path | None = None,
        environ: Mapping[str, str] | None = None,
        fresh: bool = False,
        default_models: bool = False,
        on_child: ChildListener = lambda _state: None,
        on_line: LineListener = lambda _name, _line: None,
    ) -> None:
        """`home` is a directory for this mesh alone; its name is the mesh's.

        `manifest` is the text of the resources to apply, `manifest_file` how errors call it. Agents run in
        `working_directory` (the current one), or relative to it, with `environ` (this process's) and their
        own environment. `fresh` forgets what NATS kept of an earlier run. With `default_models` there is a
        pool of models though nobody declares one: real ones if `environ` has a key, else simulated ones. Both
        listeners are called in the event loop, with a process's new state and with a process's name and the
        line it wrote.
        """
        self.ports = ports
        self._home = MeshHome(home)
        self._manifest = (manifest, manifest_file)
        self._working_directory = (working_directory or Path.cwd()).absolute()
        self._environ = {"PYTHONUNBUFFERED": "1", **(os.environ if environ is None else environ)}
        self._fresh = fresh
        self._default_models = default_models
        self._on_child = on_child
        self._on_line = on_line
        self._state = MeshState(name=home.name, pid=os.getpid(), started_at=time.time(), ports=ports)
        self._announced = False
        self._core: list[Service] = []
        self._background: list[asyncio.Task[None]] = []
        # Each start takes a processor for a while: more at once would only make all of them late.
        self._turn = asyncio.Semaphore(max(2, os.cpu_count() or 2))
        self._stack = AsyncExitStack()

    @property
    def api_url(self) -> str:
        """Where the control plane's API is."""
        return self._state.api_url

    @property
    def api(self) -> ControlApi:
        """The control plane's API, asked by whoever started the mesh; there while the mesh is entered."""
        return self._api

    @property
    def proxy_url(self) -> str:
        """Where the door is, an HTTP proxy into the mesh: `Mesh(proxy=mesh.proxy_url)`."""
        return self._state.proxy_url

    @property
    def state(self) -> MeshState:
        """The mesh as `weft status` shows it."""
        return self._state.model_copy(
            update={
                "children": tuple(self.children.values()),
                "gateways": tuple(self._reconciler.gateways),
            }
        )

    @property
    def children(self) -> Mapping[str, ChildState]:
        """Every process by its name: `nats`, `control`, `door`, and `<type>-<n>` for the agents' sidecars."""
        services = [*self._core, *self._reconciler.services]
        return {each.spec.name: each.state for each in services}

    async def __aenter__(self) -> Self:
        """Start the mesh.

        Raises InvalidResource if the manifest is wrong, Conflict if a mesh runs in `home`, Unavailable if a
        port is in use or a process does not start; nothing is left over then.
        """
        text, file = self._manifest
        if text:
            parse_manifest(text, file)  # better said now than when half of the mesh is up
        try:
            await self._enter(self._stack)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def wait_healthy(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until every declared replica is healthy and can be called by all others; nothing else runs.

        Raises Unavailable, saying which is not and why, after `timeout` seconds, or at once when one ends
        over and over.
        """
        waited_for = "the declared agents"
        try:
            async with asyncio.timeout(timeout):
                await self._reconciler.wait_settled()
                waited_for = "sidecars that have not taken over their configuration"
                await until(self._api.settled)
        except TimeoutError:
            unsettled = [self._explain(name) for name in self._reconciler.unsettled()]
            raise Unavailable(
                f"not healthy after {timeout:g} s: {'; '.join(unsettled) or waited_for}"
            ) from None

    def hurry(self) -> None:
        """Make a stop that is under way wait for no call in flight."""
        # What is not being stopped yet is needed until the agents have left, and would be started anew.
        for each in (*self._reconciler.services, *(part for part in self._core if part.stopping)):
            each.hurry()

    async def _enter(self, stack: AsyncExitStack) -> None:
        stack.enter_context(self._home.held())
        check_free(self.ports)
        if self._fresh:
            self._home.forget_data()
        self._security = self._home.secure(fresh=self._fresh)
        self._guard = await stack.enter_async_context(Guard(grace=GUARD_GRACE))
        security = self._security
        self._api = await stack.enter_async_context(
            ControlApi(self.api_url, token=security.token, roots=security.bundle)
        )
        self._instances = Instances(self._api, self._wake)
        self._reconciler = Reconciler(self._api, self._launch, self._announce)
        self._tasks = await stack.enter_async_context(asyncio.TaskGroup())
        stack.push_async_callback(self._stop)
        await self._start()

    async def _start(self) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._run_core(self._nats())
                await self._run_core(self._control())
                await self._trusted()
                await self._declare_all()
                await self._run_core(self._door())
                for each in self._core:
                    await each.wait_ready()
        except TimeoutError as error:
            starting = next((each for each in self._core if not each.ready), self._core[-1])
            raise Unavailable(
                f"{starting.spec.name} is not ready after {START_TIMEOUT:g} s; see {self._home.logs}"
            ) from error
        self._background = [
            self._tasks.create_task(self._follow_trust(), name="trust"),
            self._tasks.create_task(self._instances.run(), name="watch of instances"),
            self._tasks.create_task(self._reconciler.run(), name="reconciler"),
        ]
        self._announced = True
        self._announce()

    async def _run_core(self, spec: ServiceSpec) -> None:
        service = self._run(spec)
        self._core.append(service)
        await service.wait_ready()

    async def _declare_all(self) -> None:
        """Declare what is to be there; again if NATS, which has read its certificates anew, was not ready."""
        now = asyncio.get_running_loop().time
        deadline = now() + _DECLARING_LIMIT
        for pause in backoff(longest=1.0):
            try:
                await self._declare()
            except Unavailable:
                if now() + pause > deadline:
                    raise
                await asyncio.sleep(pause)
            else:
                return

    async def _declare(self) -> None:
        text, file = self._manifest
        if self._default_models and declares_models(text, file):
            await remove_default(self._api)  # before, since both may be for any model
        if text:
            await self._api.apply(text, file)
        if not self._default_models:
            return
        if await others_declared(self._api):
            await remove_default(self._api)
        else:
            await self._offer_models()

    async def _offer_models(self) -> None:
        port = free_port()
        models = default_models(self._environ, port)
        await replace_default(self._api, models)
        if models.simulated:
            self._core.append(self._run(self._simulator(port)))  # gets ready beside the door
        self._environ = {name: value for name, value in self._environ.items() if name not in models.variables}
        self._state = self._state.model_copy(update={"models": models.notice})

    def _nats(self) -> ServiceSpec:
        port = self.ports.nats
        command = nats_command(self._home, port, self._security.nats)
        return ServiceSpec(
            "nats",
            command,
            self._environ,
            self._home.directory,
            lambda _: nats_serves(port, self._security.nats),
        )

    def _control(self) -> ServiceSpec:
        return ServiceSpec(
            "control",
            control_command(self.ports),
            {**self._environ, **self._security.control_environment()},
            self._home.directory,
            lambda _: self._api.ready(),
        )

    def _simulator(self, port: int) -> ServiceSpec:
        return ServiceSpec(
            SIMULATOR,
            simulator_command(port),
            simulator_environment(self._environ),
            self._home.directory,
            lambda _: _accepts(port),
        )

    def _door(self) -> ServiceSpec:
        proxy = self.ports.proxy
        return ServiceSpec(
            DOOR,
            door_command(self.ports, self._home.directory),
            self._environ,
            self._home.directory,
            lambda _: _accepts(proxy),
            admission=partial(self._admit, None, DOOR, {}),
        )

    async def _admit(
        self, agent_type: str | None, instance: str, labels: Mapping[str, str]
    ) -> Mapping[str, str]:
        """What a sidecar proves itself with at one start."""
        token = await self._api.join_token(agent_type, instance, labels)
        return {"WEFT_JOIN_TOKEN": token}

    async def _follow_trust(self) -> None:
        """Have NATS believe whom the mesh believes, though its roots change."""
        while True:
            await asyncio.sleep(_TRUST_INTERVAL)
            await self._trusted()

    async def _trusted(self) -> None:
        if await asyncio.to_thread(self._security.refresh_nats_trust):
            self._core[0].send(signal.SIGHUP)  # upon which NATS reads its certificates anew

    def _launch(self, run: AgentRun, index: int) -> Service:
        name = f"{run.type}-{index}"
        # One incarnation for all its starts: a replica that was killed is back without waiting out its lease.
        identity = ["--id", name, "--incarnation", uuid.uuid4().hex]

        async def healthy(since: float) -> bool:
            return self._instances.healthy(run.type, name, since=since)

        return self._run(
            ServiceSpec(
                name,
                sidecar_command(self.ports, self._home.directory, [*identity, *run.arguments], run.command),
                {**self._environ, **run.about, **run.environment},
                self._working_directory / run.working_directory,
                healthy,
                run.stop_grace,
                partial(self._admit, run.type, name, run.labels),
            )
        )

    def _run(self, spec: ServiceSpec) -> Service:
        service = Service(
            spec,
            guard=self._guard,
            log=ProcessLog(spec.name, self._home.logs, self._on_line),
            turn=self._turn,
            changed=self._child_changed,
        )
        self._tasks.create_task(service.run(), name=spec.name)
        return service

    def _child_changed(self, state: ChildState) -> None:
        self._on_child(state)
        self._wake()
        self._announce()

    def _wake(self) -> None:
        self._reconciler.wake()

    def _announce(self) -> None:
        if self._announced:
            self._home.write_state(self.state)

    def _explain(self, name: str) -> str:
        """What is known of a replica that is not healthy."""
        instance = self._instances.get(name.rpartition("-")[0], name)
        if instance is not None and instance.reason:
            return f"{name} is {instance.status} ({instance.reason})"
        child = self.children[name]
        return f"{name} is {child.phase}" + (f" ({child.detail})" if child.detail else "")

    async def _stop(self) -> None:
        """Agents first, so that they can finish what they have in flight; NATS last."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*(each.stop() for each in self._reconciler.services))
        for each in reversed(self._core):
            await each.stop()


async def _accepts(port: int) -> bool:
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(LOOPBACK, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
