"""How long until every other sidecar knows that an agent started, drains or died."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
from benchmarks.observers import Observers, observing
from benchmarks.processes import admin_socket_of, envoy_command, envoy_of
from benchmarks.progress import step
from benchmarks.report import Budget, Figure, Result
from benchmarks.rig import HOST, START_TIMEOUT, Rig, answers, free_port, rig
from benchmarks.store_notice import notice_times

from weft.aio.children import Child

OBSERVERS = 8
"""Sidecars whose Envoys must all know."""

BUDGET = 1.0
"""Seconds that a registration, a drain or a death may take to the last sidecar."""

LEASE = 10.0
"""Seconds after which a registration lapses that nobody withdraws or renews: a sidecar's default."""

_TYPE = "subject"
_AT_ONCE = 5
"""Sidecars killed in one go, a moment apart: each costs a lease, and they can lapse side by side."""


@dataclass(slots=True)
class Times:
    """Seconds to the last sidecar, by what happened."""

    start: list[float] = field(default_factory=list)
    """Since the sidecar's process was started."""
    healthy: list[float] = field(default_factory=list)
    """Since the agent passed its first check."""
    drain: list[float] = field(default_factory=list)
    agent_killed: list[float] = field(default_factory=list)
    sidecar_killed: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Subject:
    """An agent whose coming and going is watched."""

    sidecar: Child
    endpoint: str
    """Where its sidecar takes calls, as other Envoys know it."""


async def measure(*, quick: bool = False) -> Result:
    """Start, drain and kill agents beside OBSERVERS other sidecars."""
    repetitions = 2 if quick else 10
    async with rig() as mesh:
        step(f"convergence: starting a mesh and {OBSERVERS} sidecars")
        sockets = await _observers(mesh)
        envoy = [await _envoy_start(mesh) for _ in range(repetitions)]
        notice = await notice_times(mesh.mesh.state.nats_url, mesh.nats_keys, OBSERVERS, repetitions)
        async with observing(sockets, f"type/{_TYPE}") as observers:
            times = await Bench(mesh, observers, await mesh.backend()).run(repetitions)
    return _result(times, median(envoy), median(notice), repetitions)


class Bench:
    """Lets agents come and go, and takes the times."""

    def __init__(self, mesh: Rig, observers: Observers, backend: int) -> None:
        self._mesh = mesh
        self._observers = observers
        self._backend = backend
        self._numbers = itertools.count()
        self._times = Times()

    async def run(self, repetitions: int) -> Times:
        """Let everything happen `repetitions` times."""
        # One that stays, since the first and the last of a type change more than endpoints. Not counted.
        await self._start()
        self._times = Times()
        for number in range(1, repetitions + 1):
            step(f"convergence: start, drain, SIGKILL of an agent: {number} of {repetitions}")
            await self._drain(await self._start())
            await self._kill_agent()
        for _ in range(0, repetitions, _AT_ONCE):
            step("convergence: SIGKILL of sidecars with their Envoys, until their leases lapse")
            await self._kill_sidecars(min(_AT_ONCE, repetitions))
        return self._times

    async def _start(self) -> Subject:
        """An agent that is there already gets a sidecar."""
        began = time.monotonic()
        subject, healthy = await self._subject(self._backend)
        known = await self._observers.all_know(subject.endpoint)
        self._times.start.append(known - began)
        self._times.healthy.append(known - healthy)
        return subject

    async def _subject(self, port: int, program: Sequence[str] = ()) -> tuple[Subject, float]:
        """An agent at `port` and its sidecar, and when its first check passed."""
        inbound = free_port()
        sidecar = await self._mesh.sidecar(
            f"{_TYPE}-{next(self._numbers)}",
            *("--port", str(port), "--inbound-port", str(inbound)),
            agent_type=_TYPE,
            program=program,
            stderr=PIPE,
        )
        return Subject(sidecar, f"{HOST}:{inbound}"), await _first_check(sidecar)

    async def _drain(self, subject: Subject) -> None:
        began = time.monotonic()
        os.kill(subject.sidecar.pid, signal.SIGTERM)
        self._times.drain.append(await self._observers.all_forgot(subject.endpoint) - began)
        await subject.sidecar.wait()

    async def _kill_agent(self) -> None:
        port = free_port()
        subject, _ = await self._subject(port, envoy_command("backend.yaml", port=port))
        await self._observers.all_know(subject.endpoint)
        program = _program_of(subject.sidecar.pid)
        began = time.monotonic()
        program.kill()
        self._times.agent_killed.append(await self._observers.all_forgot(subject.endpoint) - began)
        await subject.sidecar.wait()

    async def _kill_sidecars(self, count: int) -> None:
        subjects = [await self._start_uncounted() for _ in range(count)]
        async with asyncio.TaskGroup() as deaths:
            for each in subjects:
                deaths.create_task(self._kill_sidecar(each))

    async def _start_uncounted(self) -> Subject:
        subject, _ = await self._subject(self._backend)
        await self._observers.all_know(subject.endpoint)
        return subject

    async def _kill_sidecar(self, subject: Subject) -> None:
        envoy = envoy_of(subject.sidecar.pid)
        began = time.monotonic()
        os.kill(subject.sidecar.pid, signal.SIGKILL)
        envoy.kill()
        self._times.sidecar_killed.append(await self._observers.all_forgot(subject.endpoint) - began)


async def _observers(mesh: Rig) -> list[Path]:
    """Start OBSERVERS sidecars that only call; return their Envoys' admin sockets, once they are ready."""
    sidecars = [await mesh.sidecar(f"observer-{number}") for number in range(OBSERVERS)]
    return [await admin_socket_of(each.pid, START_TIMEOUT) for each in sidecars]


async def _envoy_start(mesh: Rig) -> float:
    """How long an Envoy with a file for configuration takes until it answers, in seconds."""
    port = mesh.port()
    began = time.monotonic()
    envoy = await mesh.start(envoy_command("backend.yaml", port=port))
    await answers(f"http://{HOST}:{port}")
    taken = time.monotonic() - began
    await envoy.stop(0)
    return taken


async def _first_check(sidecar: Child) -> float:
    """When the sidecar said that its agent is healthy. Raises RuntimeError if it does not."""
    assert sidecar.stderr is not None, "it is a pipe"
    said = b""
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while line := await sidecar.stderr.readline():
                if line.endswith(b" is healthy\n"):
                    return time.monotonic()
                said += line
    except TimeoutError:
        pass
    raise RuntimeError(f"an agent did not become healthy: {said.decode(errors='replace')}")


def _program_of(sidecar: int) -> psutil.Process:
    """The program beside a sidecar."""
    envoy = envoy_of(sidecar).pid
    return next(each for each in psutil.Process(sidecar).children() if each.pid != envoy and _is_envoy(each))


def _is_envoy(process: psutil.Process) -> bool:
    return process.name().startswith("envoy")


def _result(times: Times, envoy: float, notice: float, repetitions: int) -> Result:
    figures = [
        *_figures("start of the sidecar's process", times.start, envoy, "bare Envoy's start"),
        *_figures("first passed check", times.healthy, notice, "store", BUDGET),
        *_figures("drain (SIGTERM)", times.drain, notice, "store", BUDGET),
        *_figures("SIGKILL of the agent", times.agent_killed, notice, "store", BUDGET),
        *_figures("SIGKILL of sidecar and Envoy", times.sidecar_killed, LEASE, "lease", LEASE + BUDGET),
    ]
    notes = (
        f"until the last of {OBSERVERS} other sidecars' Envoys has the change, each asked every 10 ms; "
        f"{repetitions} repetitions",
        f"store: from a write to NATS KV until the last of {OBSERVERS} watchers has it",
        f"with sidecar and Envoy dead nobody is left to tell: the lease of {LEASE:g} s lapses first",
    )
    return Result("Change to effect", tuple(figures), notes)


def _figures(
    what: str, taken: Sequence[float], baseline: float, against: str, budget: float | None = None
) -> list[Figure]:
    limit = Budget(budget * 1000) if budget is not None else None
    return [
        Figure(f"{what}, {name}", value * 1000, "ms", baseline * 1000, against, limit)
        for name, value in (("p50", median(taken)), ("max", max(taken)))
    ]
