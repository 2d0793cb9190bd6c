"""What holds for all sidecars and all replicas of the control plane together, judged by the providers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.e2e.llm_stage import Provider, Stage, provider, stage
from tests.e2e.meshes import eventually
from tests.e2e.messaging_mesh import document

from weft.local.llm_control import LlmApi

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIDECARS = ("red-1", "red-2", "blue-1", "blue-2")
CONCURRENCY, REQUESTS, TOKENS, BUDGET = 4, 1200, 6000, 5000
FAIR = 2
"""Calls at once to the pool that tenants share."""
LOST = "blue-2"
"""The sidecar that is killed."""
CALLERS = 20
"""At each sidecar, of each pool."""
OUTPUT = 20
"""Tokens of each answer."""


@dataclass(frozen=True)
class Rig:
    """The mesh, and a provider for each pool."""

    stage: Stage
    providers: dict[str, Provider]


def pool(name: str, by: Provider, maxWait: str, **limits: int) -> str:  # noqa: N803 -- as in YAML
    served = {"name": "only", "url": by.url, "limits": limits}
    return document(
        "ModelPool", name, providers=[served], scheduling={"maxWait": maxWait, "maxWaiting": 10000}
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as ends:

        async def one(**behaviour: Any) -> Provider:
            return await ends.enter_async_context(provider(answerTokens=OUTPUT, **behaviour))

        providers = {
            "fair": await one(firstToken="20ms", concurrency=FAIR),
            "slots": await one(firstToken="50ms", concurrency=CONCURRENCY),
            "requests": await one(requestsPerMinute=REQUESTS),
            "tokens": await one(tokensPerMinute=TOKENS),
            "paid": await one(firstToken="20ms"),
            "free": await one(),
        }
        manifest = [
            pool("fair", providers["fair"], "60s", concurrency=FAIR),
            pool("slots", providers["slots"], "60s", concurrency=CONCURRENCY),
            pool("requests", providers["requests"], "5s", requestsPerMinute=REQUESTS),
            pool("tokens", providers["tokens"], "5s", tokensPerMinute=TOKENS),
            pool("paid", providers["paid"], "60s"),
            pool("free", providers["free"], "60s"),
            document("Budget", "all", scope="mesh", period="total", pools=["paid"], tokens=BUDGET),
        ]
        directory = tmp_path_factory.mktemp("limits")
        running = await ends.enter_async_context(stage(directory, manifest, SIDECARS, controls=2))
        yield Rig(running, providers)


async def call(http: httpx.AsyncClient, model: str) -> str:
    """What becomes of a call: `200`, or why it was refused; `lost`: its sidecar died."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"Hello, how are you today? {random.random()}"}],
        "max_tokens": OUTPUT,
    }
    try:
        answer = await http.post("/chat/completions", json=body)
    except httpx.TransportError:
        return "lost"
    return str(answer.headers.get("x-weft-error", answer.status_code))


async def test_backlogged_tenants_are_served_alike_though_one_asks_for_ten_times_as_much(rig: Rig) -> None:
    served: Counter[str] = Counter()
    over = asyncio.Event()

    async def caller(http: httpx.AsyncClient, tenant: str) -> None:
        while not over.is_set():
            assert await call(http, "fair") == "200"
            if not over.is_set():
                served[tenant] += 1

    async with rig.stage.raw("red-1") as red, rig.stage.raw("blue-1") as blue, asyncio.TaskGroup() as tasks:
        for _ in range(120):
            tasks.create_task(caller(red, "red"))
        await rig.stage.pool_becomes("fair", lambda pool: pool["callsWaiting"] > 100)
        for _ in range(12):
            tasks.create_task(caller(blue, "blue"))
        await eventually(lambda: _served(served, "blue", 4), lambda: str(served))
        served.clear()
        await eventually(lambda: _served(served, "blue", 60), lambda: str(served))
        counted = dict(served)
        over.set()
    # VTC's bound, with calls that are alike: twice what all that run at once may cost.
    assert abs(counted["red"] - counted["blue"]) <= 2 * FAIR + 1
    assert not any(rig.providers["fair"].stats["refused"].values())


async def _served(served: Counter[str], tenant: str, number: int) -> bool:
    return served[tenant] >= number


async def test_most_calls_do_not_ask_while_nobody_waits(rig: Rig) -> None:
    async with AsyncExitStack() as ends:
        clients = [await ends.enter_async_context(rig.stage.raw(each)) for each in SIDECARS]

        async def each_calls(model: str, times: int) -> None:
            outcomes = [call(http, model) for http in clients for _ in range(times)]
            assert {*await asyncio.gather(*outcomes)} == {"200"}

        async def leased(model: str, holders: int) -> bool:
            await each_calls(model, 1)
            return bool((await rig.stage.pool(model))["leases"] >= holders)

        await eventually(
            lambda: leased("free", len(clients)), lambda: "not all of them had a lease", pause=0.3
        )
        before = (await rig.stage.pool("free"))["admitted"]
        await each_calls("free", 50)
        await rig.stage.pool_becomes("free", lambda pool: pool["tokensPerSecond"] > 0)
        asked = (await rig.stage.pool("free"))["admitted"] - before
        assert asked < 50
        # What the next test asks for begins on leases, too.
        await eventually(lambda: leased("requests", 1), lambda: "nobody had a lease", pause=0.2)


async def test_no_limit_is_exceeded_and_who_waits_is_served_though_the_leader_and_a_sidecar_are_killed(
    rig: Rig,
) -> None:
    stage = rig.stage
    offered = {"slots": 80, "requests": 1440, "tokens": 400, "paid": 400}
    ends: dict[str, Counter[str]] = {each: Counter() for each in offered}
    (leader,) = [each for each, program in stage.controls.items() if "schedules calls" in program.log]

    async def caller(name: str, http: httpx.AsyncClient, model: str, number: int) -> None:
        for _ in range(number):
            end = await call(http, model)
            assert end != "lost" or name == LOST
            ends[model][end] += 1

    async with AsyncExitStack() as closing, asyncio.TaskGroup() as tasks:
        for name in SIDECARS:
            http = await closing.enter_async_context(stage.raw(name))
            for model, number in offered.items():
                for _ in range(CALLERS):
                    tasks.create_task(caller(name, http, model, number // len(SIDECARS) // CALLERS))
        slots = rig.providers["slots"]
        await eventually(lambda: _requests(slots, 20), lambda: str(slots.stats))
        stage.controls[leader].kill()
        stage.sidecars[LOST].kill_family()
    for model, judge in rig.providers.items():
        assert not any(judge.stats["refused"].values()), model
    # Who waited was served, or refused for the reason that there is.
    assert {*ends["slots"]} <= {"200", "lost"}
    assert {*ends["requests"], *ends["tokens"]} <= {"200", "waited_too_long", "lost"}
    assert {*ends["paid"]} <= {"200", "budget_exceeded", "lost"}
    assert rig.providers["slots"].stats["mostInFlight"] == CONCURRENCY
    assert REQUESTS / 2 < rig.providers["requests"].stats["requests"] <= REQUESTS
    assert TOKENS / 2 < rig.providers["tokens"].stats["mostTokensPerMinute"] <= TOKENS
    paid = rig.providers["paid"].stats
    used = paid["promptTokens"] + paid["completionTokens"]
    (budget,) = await stage.asked(LlmApi.budgets)
    assert BUDGET / 4 < used <= budget["spentTokens"] + budget["setAsideTokens"] <= BUDGET


async def _requests(by: Provider, number: int) -> bool:
    return bool(by.stats["requests"] >= number)
