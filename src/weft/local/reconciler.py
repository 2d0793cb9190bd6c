"""Runs the replicas that the declared agents ask for, and keeps to it when the declaration changes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from weft.errors import InvalidRequest, MeshError, Unavailable
from weft.local.agent_run import AgentRun, agent_run
from weft.local.control import ControlApi
from weft.local.doors import Doors
from weft.local.gateway_run import gateway_run
from weft.local.rollout import Replica, Start, next_step
from weft.local.service import Service
from weft.model.local_state import GatewayState
from weft.sdk.sse import Event

logger = logging.getLogger(__name__)

_PAUSE = 0.5
_DOOR_PAUSE = 2.0  # seconds until it is tried again to have a gateway's port

Launch = Callable[[AgentRun, int], Service]
"""Makes the service of one replica, and has it running."""


@dataclass(slots=True)
class _Running:
    """A replica, and what it was started with."""

    service: Service
    run: AgentRun


class Reconciler:
    """The replicas of every declared agent that has a `run` block, and of every declared gateway."""

    def __init__(self, api: ControlApi, launch: Launch, removed: Callable[[], None]) -> None:
        """`removed` is called when a replica is gone for good."""
        self._api = api
        self._launch = launch
        self._removed = removed
        self._declared: dict[str, AgentRun] | None = None
        self._replicas: dict[str, dict[int, _Running]] = {}
        self._doors = Doors()
        self._shut: dict[str, str] = {}
        """Why gateways cannot have their ports, by name."""
        self._woken = asyncio.Event()
        self._settled = asyncio.Condition()

    @property
    def services(self) -> list[Service]:
        """All replicas there are, those that are stopping included."""
        return [each.service for replicas in self._replicas.values() for each in replicas.values()]

    @property
    def gateways(self) -> list[GatewayState]:
        """The declared gateways that run here, by name."""
        declared = sorted((self._declared or {}).values(), key=lambda each: each.type)
        return [GatewayState(name=each.type, url=each.url) for each in declared if each.url and each.replicas]

    def wake(self) -> None:
        """Something changed that may allow the next step."""
        self._woken.set()

    async def run(self) -> None:
        """Follow the declaration until cancelled; the replicas are left as they are."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow(), name="watch of resources")
                while True:
                    await self._woken.wait()
                    self._woken.clear()
                    self._converge(tasks)
                    async with self._settled:
                        self._settled.notify_all()
        finally:
            self._doors.keep(())

    async def wait_settled(self) -> None:
        """Wait until exactly what is declared runs, and is healthy.

        Raises Unavailable, with the reason, when a replica ends over and over instead.
        """
        async with self._settled:
            await self._settled.wait_for(lambda: self._is_settled() or self._failing())
        if failing := self._failing():
            raise Unavailable("\n".join(failing))

    def unsettled(self) -> list[str]:
        """The names of replicas that are not healthy, or not yet gone."""
        return [each.spec.name for each in self.services if not each.ready or each.stopping]

    async def _follow(self) -> None:
        while True:
            try:
                async with aclosing(self._api.watch("/v1/resources")) as events:
                    synced = False
                    async for event in events:
                        synced = synced or event.name == "synced"
                        if synced and _concerns_agents(event):
                            await self._read_declaration()
            except MeshError as error:
                logger.info("the watch of resources broke off (%s); it begins anew", error)
            await asyncio.sleep(_PAUSE)

    async def _read_declaration(self) -> None:
        declared = {}
        for kind, make in (("agents", agent_run), ("gateways", gateway_run)):
            for each in await self._api.resources(kind):
                try:
                    run = make(each)
                except InvalidRequest as error:
                    logger.warning("a declaration makes no sense and is passed over: %s", error)
                    continue
                if run is not None:
                    declared[run.type] = run
        self._declared = declared
        self.wake()

    def _converge(self, tasks: asyncio.TaskGroup) -> None:
        if self._declared is None:
            return
        for agent_type in sorted({*self._declared, *self._replicas}):
            while self._step(agent_type, self._declared.get(agent_type), tasks):
                pass
        runs = [each.run for replicas in self._replicas.values() for each in replicas.values()]
        used = {each.door for each in (*runs, *self._declared.values()) if each.door is not None}
        self._doors.keep(used)

    def _step(self, agent_type: str, run: AgentRun | None, tasks: asyncio.TaskGroup) -> bool:
        """Take the next step for an agent, if there is one to take now."""
        replicas = self._replicas.setdefault(agent_type, {})
        states = [
            Replica(
                index,
                run is not None and each.run.same_program(run),
                each.service.ready,
                each.service.stopping,
            )
            for index, each in replicas.items()
        ]
        step = next_step(states, run.replicas if run else 0, surge=run is None or run.surge)
        if step is None:
            return False
        if isinstance(step, Start):
            assert run is not None, "nothing is started for what is not declared"  # noqa: S101
            if not self._has_door(run):
                return False
            replicas[step.index] = _Running(self._launch(run, step.index), run)
        else:
            replicas[step.index].service.ask_to_stop()
            tasks.create_task(self._remove(agent_type, step.index), name=f"stop of {agent_type}-{step.index}")
        return True

    def _has_door(self, run: AgentRun) -> bool:
        """Whether its replicas can have the port that they share; else it is tried again."""
        why = "" if run.door is None else self._doors.hold(run.door)
        if why and self._shut.get(run.type) != why:
            logger.warning("gateway %r waits: %s", run.type, why)
        if why:
            self._shut[run.type] = why
            asyncio.get_running_loop().call_later(_DOOR_PAUSE, self.wake)
        else:
            self._shut.pop(run.type, None)
        return not why

    async def _remove(self, agent_type: str, index: int) -> None:
        await self._replicas[agent_type][index].service.stop()
        del self._replicas[agent_type][index]
        self._removed()
        self.wake()

    def _is_settled(self) -> bool:
        declared = self._declared
        if declared is None:
            return False
        complete = all(len(self._replicas.get(each.type, ())) == each.replicas for each in declared.values())
        return (
            complete
            and not self.unsettled()
            and all(self._is_current(declared, each) for each in self._replicas)
        )

    def _is_current(self, declared: dict[str, AgentRun], agent_type: str) -> bool:
        run = declared.get(agent_type)
        replicas = self._replicas[agent_type].values()
        return all(run is not None and each.run.same_program(run) for each in replicas)

    def _failing(self) -> list[str]:
        shut = [
            f"gateway {name} does not start: {why}"
            for name, why in self._shut.items()
            if name in (self._declared or ())
        ]
        return shut + [failure for each in self.services if (failure := each.failure)]


def _concerns_agents(event: Event) -> bool:
    """Whether an event of the watch may change what is to run."""
    if event.name == "synced":
        return True
    try:
        return json.loads(event.data)["kind"] in {"Agent", "Gateway"}
    except (ValueError, KeyError, TypeError):
        return True
