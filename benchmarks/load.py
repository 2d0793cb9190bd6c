"""Load generators, which others wrote: k6 for a given rate, wrk (k6 where there is none) for the maximum."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from benchmarks.processes import CONFIG, STOP_GRACE

from weft.aio.children import spawn
from weft.aio.guard import Guard

BODY = json.dumps({"kind": "summarize", "payload": {"text": "Weft is an agent mesh. " * 8, "length": 100}})
"""What every request carries: a call as the SDK makes it."""

_SLACK = 30.0
"""Seconds that a load generator may take beside the load itself."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go: a URL, and the agent's type in `x-weft-to`, which only the mesh's Envoy heeds."""

    url: str
    destination: str = "bench"
    body: str = BODY
    key: str = field(default="", repr=False)
    """Sent as a bearer token, if there is one; it reaches the load generator by its environment."""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load; latencies in milliseconds."""

    requests: int
    seconds: float
    failed: int
    dropped: int
    """Requests that the generator itself could not make in time."""
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


async def open_loop(guard: Guard, target: Target, *, rate: int, seconds: int) -> Load:
    """Make `rate` requests a second by k6. Raises RuntimeError if any failed."""
    return await _k6(guard, target, {"RATE": str(rate)}, seconds)


async def closed_loop(guard: Guard, target: Target, *, connections: int, seconds: int) -> Load:
    """Make requests over `connections` as fast as they are answered. Raises RuntimeError if any failed."""
    if (wrk := shutil.which("wrk")) is None:
        return await _k6(guard, target, {"CONNECTIONS": str(connections)}, seconds)
    command = [
        wrk,
        *(
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            f"{seconds + _SLACK:g}s",
            "-s",
            str(CONFIG / "load.lua"),
        ),
        *(target.url, "--", target.destination, target.body),
    ]
    return await _run(guard, command, {"KEY": target.key}, seconds)


def closed_loop_generator() -> str:
    """The program that makes closed loops here."""
    return "wrk, 1 thread" if shutil.which("wrk") else "k6 (install wrk for a lighter load generator)"


async def _k6(guard: Guard, target: Target, shape: Mapping[str, str], seconds: int) -> Load:
    environ = {
        "K6_NO_USAGE_REPORT": "true",
        "DURATION": f"{seconds}s",
        "URL": target.url,
        "DESTINATION": target.destination,
        "BODY": target.body,
        "KEY": target.key,
        **shape,
    }
    program = str(Path(sys.executable).with_name("k6"))
    return await _run(guard, [program, "run", "--quiet", str(CONFIG / "load.js")], environ, seconds)


async def _run(guard: Guard, command: Sequence[str], environ: Mapping[str, str], seconds: int) -> Load:
    with TemporaryFile() as output:
        child = await spawn(
            command,
            guard=guard,
            environ={**os.environ, **environ},
            stdin=DEVNULL,
            stdout=output.fileno(),
            stderr=DEVNULL,
        )
        try:
            async with asyncio.timeout(seconds + _SLACK):
                code = await child.exited()
        finally:
            await child.stop(STOP_GRACE)
        output.seek(0)
        return _load(command[0], code, output.read().decode(errors="replace"))


def _load(program: str, code: int, text: str) -> Load:
    lines = text.strip().splitlines()
    if code or not lines:
        raise RuntimeError(f"{program} ended with exit code {code}: {text[-500:]}")
    load = Load(**json.loads(lines[-1]))
    if load.failed:
        raise RuntimeError(f"{load.failed} of {load.requests} requests of {program} failed")
    return load
