"""Whether limits of providers are used and kept, and work is shared fairly; the simulated provider judges."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import aiohttp
from benchmarks.load import Target, closed_loop
from benchmarks.models.calls import PATH, request
from benchmarks.models.doors import takes_calls
from benchmarks.models.pools import declare, pool
from benchmarks.processes import module_command
from benchmarks.progress import step
from benchmarks.report import Budget, Figure, Result
from benchmarks.rig import HOST, START_TIMEOUT, Rig, free_port, rig

from weft.aio.poll import until
from weft.controlplane.llm.limits import BUCKET, MARGIN, WINDOW
from weft.local.llm_control import LlmApi
from weft.model.llm_wire import LLM_HOST

TENANTS = {"tenant-a": 96, "tenant-b": 48, "tenant-c": 48, "tenant-d": 48}
"""Agents of four types, each with a sidecar of its own, and how many calls each has waiting or under way.

A limit by the minute lets a whole minute's calls go at once: who has fewer than its share of these does not
wait then, and what it gets says nothing about fairness. `Seen.backlogged` tells whether everybody did wait.
"""

USED_BUDGET = 0.95
"""The part of a limit that is to be used while work waits."""

FAIR_BUDGET = 0.99
"""Jain's index of the tokens that the tenants got."""

FIRST_TOKEN, TOKENS, TOKENS_PER_SECOND, MOST_TOKENS = 0.5, 100, 50, 200
"""How the simulated provider answers: 2.5 s for 100 tokens, of the 200 that calls allow."""

WAVE = WINDOW + MARGIN + BUCKET + 0.25
"""Seconds after which a limit by the minute lets calls go again, and what it takes to notice.

All wait for it from the start, so what it allows goes in the first seconds, and again when these have left
the window: in waves. What is measured are whole waves, from calm to calm: a minute of anything else has parts
of two, calls without their answers, answers without their calls.
"""

SETTLING = 45.0
"""Seconds after which the first wave has long been answered, and the second is not yet due. In the first,
tenants that begin a moment earlier find nobody with whom to share."""

_LOOK = 0.25
"""Seconds between two looks at how many calls are under way."""


@dataclass(frozen=True, slots=True)
class Limited:
    """One provider, with one limit."""

    name: str
    field: str
    """Of `limits` of a provider."""
    limit: int
    most: str
    """The most that the simulator saw of it, in its statistics."""


LIMITS = (
    Limited("calls at once", "concurrency", 16, "mostInFlight"),
    Limited("calls/min", "requestsPerMinute", 120, "mostRequestsPerMinute"),
    Limited("tokens/min", "tokensPerMinute", 15_000, "mostTokensPerMinute"),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the simulator saw of one limit."""

    used: float
    """The part of the limit that was used."""
    most: int
    refused: int
    served: tuple[int, ...]
    """Tokens of each tenant's."""
    backlogged: float
    """The part of the looks at which every tenant had a call waiting."""


async def measure(*, quick: bool = False) -> Result:
    """All limits at the same time, each with a provider and a pool of its own."""
    seconds = WAVE if quick else 2 * WAVE
    async with rig() as mesh:
        sims = [await _simulator(mesh, each) for each in LIMITS]
        await declare(mesh, [_pool(each, port) for each, port in zip(LIMITS, sims, strict=True)])
        step(f"llm-limits: starting a second control plane and {len(TENANTS)} sidecars")
        doors = await _sidecars(mesh, await mesh.another_control("control-2"))
        step(f"llm-limits: {SETTLING + seconds:g} s of load")
        loads = [
            closed_loop(mesh.guard, target, connections=connections, seconds=int(SETTLING + seconds) + 2)
            for target, connections in _targets(doors)
        ]
        watched = [_watched(mesh, each, port, seconds) for each, port in zip(LIMITS, sims, strict=True)]
        seen, _ = await asyncio.gather(asyncio.gather(*watched), asyncio.gather(*loads))
    return _result(seen, seconds)


async def _simulator(mesh: Rig, limited: Limited) -> int:
    port = free_port()
    option = "".join(f"-{each.lower()}" if each.isupper() else each for each in limited.field)
    command = module_command(
        "weft.llm_sim",
        *("--port", str(port), f"--{option}", str(limited.limit)),
        *("--first-token", f"{FIRST_TOKEN:g}s", "--tokens-per-second", str(TOKENS_PER_SECOND)),
        *("--answer-tokens", str(TOKENS)),
    )
    await mesh.start(command)
    await _statistics(port)
    return port


def _pool(limited: Limited, port: int) -> dict[str, Any]:
    made = pool(limited.field.lower(), port, {limited.field: limited.limit}, maxWait="20m")
    # By the model's name the provider can tell tenants apart.
    made["spec"]["models"] = [_model(limited, tenant) for tenant in TENANTS]
    return made


def _model(limited: Limited, tenant: str) -> str:
    return f"{limited.field.lower()}-{tenant}"


async def _sidecars(mesh: Rig, control: int) -> dict[str, int]:
    """One for each tenant, that know both replicas of the control plane; the ports of their doors."""
    doors = {}
    for tenant in TENANTS:
        port = doors[tenant] = free_port()
        await mesh.sidecar(
            f"{tenant}-1",
            *("--outbound-port", str(port), "--port", str(mesh.mesh.ports.proxy), "--health-path="),
            *("--xds", f"{HOST}:{mesh.mesh.ports.xds},{HOST}:{control}"),
            agent_type=tenant,
        )
    await asyncio.gather(*(takes_calls(target) for target, _ in _targets(doors)))
    return doors


def _targets(doors: Mapping[str, int]) -> Iterator[tuple[Target, int]]:
    for limited in LIMITS:
        for tenant, connections in TENANTS.items():
            body = request(_model(limited, tenant), max_tokens=MOST_TOKENS)
            yield Target(f"http://{HOST}:{doors[tenant]}{PATH}", LLM_HOST, body), connections


async def _watched(mesh: Rig, limited: Limited, port: int, seconds: float) -> Seen:
    """Compare what the simulator saw before and after whole waves of the load that begins now."""
    await asyncio.sleep(SETTLING)
    before, began = await _statistics(port), time.monotonic()
    under_way, backlogged = [], []
    models = LlmApi(mesh.mesh.api)
    while time.monotonic() - began < seconds:
        await asyncio.sleep(_LOOK)
        under_way.append((await _statistics(port))["inFlight"])
        told = await models.pool(limited.field.lower())
        backlogged.append({each["tenant"] for each in told["waiting"] if each["calls"]} >= TENANTS.keys())
    after, took = await _statistics(port), time.monotonic() - began
    served = tuple(
        _tokens(after["byModel"].get(name)) - _tokens(before["byModel"].get(name))
        for name in (_model(limited, tenant) for tenant in TENANTS)
    )
    calls = after["requests"] - before["requests"]
    used = {
        "concurrency": fmean(under_way),
        "requestsPerMinute": calls / took * 60,
        "tokensPerMinute": sum(served) / took * 60,
    }
    part, refused = used[limited.field] / limited.limit, sum(after["refused"].values())
    return Seen(part, after[limited.most], refused, served, fmean(backlogged))


def _tokens(usage: Mapping[str, int] | None) -> int:
    return usage["promptTokens"] + usage["completionTokens"] if usage else 0


async def _statistics(port: int) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def told() -> bool:
        with suppress(aiohttp.ClientError):
            async with client.get(f"http://{HOST}:{port}/sim/stats") as response:
                found.update(await response.json())
        return bool(found)

    async with aiohttp.ClientSession() as client, asyncio.timeout(START_TIMEOUT):
        await until(told)
    return found


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 if all are alike, 1/n if one has everything."""
    squares = sum(each * each for each in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


def _result(seen: Sequence[Seen], seconds: float) -> Result:
    figures = []
    for limited, saw in zip(LIMITS, seen, strict=True):
        name = f"limit of {limited.limit:,} {limited.name}"
        used, fair = (Budget(each, at_most=False) for each in (USED_BUDGET, FAIR_BUDGET))
        figures += [
            Figure(f"{name}: used", saw.used, "", budget=used),
            Figure(f"{name}: most seen", saw.most, "", limited.limit, "allowed", Budget(limited.limit)),
            Figure(f"{name}: refused", saw.refused, "calls", budget=Budget(0)),
            Figure(f"{name}: everybody waits", saw.backlogged * 100, "% of looks"),
            Figure(f"{name}: Jain's index", jain(saw.served), "", budget=fair),
        ]
    loads = ", ".join(f"{each}" for each in TENANTS.values())
    return Result(
        "Limits of providers, while work waits",
        tuple(figures),
        (
            f"two control planes, {len(TENANTS)} sidecars, each of another tenant, with {loads} calls "
            f"waiting or under way at each provider all the time; {seconds:g} s, after {SETTLING:g} s of it, "
            f"are whole waves: what a minute allows goes at once, and again {WAVE:g} s later",
            f"the provider is `weft llm-sim`, and the judge of all: {FIRST_TOKEN:g} s to the first token, "
            f"{TOKENS} tokens at {TOKENS_PER_SECOND} a second, of the {MOST_TOKENS} that calls allow",
            "tokens of the tenants: "
            + "; ".join(", ".join(f"{each:,}" for each in saw.served) for saw in seen),
        ),
    )
