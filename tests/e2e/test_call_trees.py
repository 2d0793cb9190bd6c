"""What travels with calls, over five hops of a real mesh: deadline, budget, way, trace, and their end."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.a2a_clients import result, said, state, task
from tests.e2e.llm_stage import Provider, provider
from tests.e2e.meshes import RunningMesh, mesh_client, running_mesh
from tests.e2e.messaging_mesh import Journal, agent, document, manifest

import weft
from weft import LoopDetected, Mesh, TimedOut

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOPS = [f"hop-{number}" for number in range(1, 6)]
LIMIT = 60.0


@dataclass(frozen=True)
class Caravan:
    """Five agents in a row, and a model."""

    mesh: RunningMesh
    client: Mesh
    provider: Provider
    journal: Journal

    async def walk(self, then: str, way: list[str] = HOPS) -> list[Any]:
        """What every hop was told, and what came of `then` at the last."""
        found: list[Any] = await self.client.request(
            way[0], "walk", way=way[1:], then=then, timeout=LIMIT, result_type=list
        )
        return found

    async def noted(self, what: str, *, times: int = 1) -> list[list[str]]:
        """What agents have noted of it, once they have so often."""
        await self.journal.has(lambda journal: len(journal.of(what)) >= times)
        return self.journal.of(what)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def caravan(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Caravan]:
    journal = Journal(tmp_path_factory.mktemp("caravan") / "journal")
    async with AsyncExitStack() as stack:
        simulated = await stack.enter_async_context(provider())
        declared = manifest(
            document("ModelPool", "plain", providers=[{"name": "first", "url": simulated.url}]),
            document("Topic", "news"),
            document("Queue", "jobs"),
            *(agent(name, "caravan.py", journal.file) for name in HOPS),
        )
        mesh = await stack.enter_async_context(running_mesh(declared))
        client = await stack.enter_async_context(mesh_client(mesh))
        yield Caravan(mesh, client, simulated, journal)


@pytest.fixture(autouse=True)
def afresh(caravan: Caravan) -> None:
    caravan.journal.file.unlink(missing_ok=True)


async def test_every_hop_is_told_the_way_so_far_what_is_left_and_the_same_trace(caravan: Caravan) -> None:
    with weft.limits(timeout=LIMIT, budget="5000 tokens", branch=""):
        *hops, end = await caravan.walk("stop")
    assert end == "stopped"
    assert [each["hops"] for each in hops] == [HOPS[:number] for number in range(5)]
    assert len({each["trace"] for each in hops}) == 1
    assert len({each["deadline"] for each in hops}) == 1
    left = [each["remaining"] for each in hops]
    assert LIMIT > left[0] > left[1] > left[2] > left[3] > left[4] > 0
    assert {each["budget"] for each in hops} == {"5000 tokens"}


async def test_when_the_deadline_passes_the_whole_tree_stops(caravan: Caravan) -> None:
    began = time.time()
    async with httpx.AsyncClient(proxy=caravan.mesh.local.proxy_url, timeout=LIMIT, trust_env=False) as http:
        # Neither the caller nor its client knows of deadlines: the sidecar keeps it.
        answer = await http.post(
            "http://hop-1.mesh/rpc",
            json={"kind": "walk", "payload": {"way": HOPS[1:], "then": "sleep"}},
            headers={"x-weft-deadline": str(int((began + 6) * 1000))},
        )
    assert (answer.status_code, answer.headers["x-weft-error"]) == (504, "timed-out")
    assert time.time() - began > 5.9  # deadlines are whole milliseconds, and so are Envoy's timers
    assert sorted(each[0] for each in await caravan.noted("ended", times=5)) == HOPS


async def test_what_is_called_after_the_deadline_is_refused_at_once_at_the_deepest_hop(
    caravan: Caravan,
) -> None:
    # By then even a busy machine has got to that hop.
    with weft.limits(timeout=5.0), pytest.raises(TimedOut):
        await caravan.walk("late")
    assert await caravan.noted("late") == [["504", "timed-out"]]


async def test_who_gives_up_a_call_gives_up_all_that_is_done_for_it(caravan: Caravan) -> None:
    call = asyncio.create_task(caravan.walk("sleep"))
    await caravan.noted("sleeping")
    call.cancel()
    await asyncio.wait([call])
    assert sorted(each[0] for each in await caravan.noted("cancelled", times=5)) == HOPS


async def test_who_cancels_a_task_by_a2a_ends_all_that_its_handler_has_others_do(caravan: Caravan) -> None:
    async with httpx.AsyncClient(proxy=caravan.mesh.local.proxy_url, timeout=LIMIT, trust_env=False) as http:
        message = said({"way": HOPS[1:], "then": "sleep"}, skill="walk")
        found = await task(http, "http://hop-1.mesh", message, returnImmediately=True)
        await caravan.noted("sleeping")
        ended = await result(http, "http://hop-1.mesh", "CancelTask", {"id": found["id"]})
    assert state(ended) == "canceled"
    assert sorted(each[0] for each in await caravan.noted("cancelled", times=5)) == HOPS


async def test_what_a_tree_may_spend_is_spent_wherever_it_is_spent(caravan: Caravan) -> None:
    with weft.limits(budget="220 tokens", branch=""):
        first = (await caravan.walk("ask"))[-1]
        assert (first["before"], first["refused"]) == (220, None)
        assert first["after"] < 220
        answers = [first]
        async with asyncio.timeout(LIMIT):
            while answers[-1]["refused"] is None:
                answers.append((await caravan.walk("ask", HOPS[: 1 + len(answers) % 5]))[-1])
        left = await caravan.client.budget()
    assert "429" in answers[-1]["refused"]
    assert "(x-weft-budget) of the call tree" in answers[-1]["refused"]
    assert left.tokens is not None
    assert left.tokens < 100
    assert (await caravan.walk("ask"))[-1]["refused"] is None, "another tree"


async def test_a_branch_spends_its_own_and_leaves_the_others_theirs(caravan: Caravan) -> None:
    async def branch(budget: str) -> Any:
        with weft.limits(budget=budget):
            return (await caravan.walk("ask", HOPS[:2]))[-1]

    with weft.limits(budget="100000 tokens", branch=""):
        poor, rich = await asyncio.gather(branch("5 tokens"), branch("5000 tokens"))
    assert "branch" in poor["refused"]
    assert (rich["refused"], rich["parts"]) == (None, 2)


async def test_two_agents_that_call_each_other_for_ever_are_stopped_with_508(caravan: Caravan) -> None:
    with pytest.raises(
        LoopDetected, match="round: hop-2 -> hop-1 -> hop-2; its way was hop-1 -> hop-2 -> hop"
    ):
        await caravan.client.request("hop-1", "ping", to="hop-2", back="hop-1", timeout=LIMIT)
    with pytest.raises(LoopDetected, match="16 agents"):
        await caravan.client.request("hop-3", "ping", to="hop-3", back="hop-3", timeout=LIMIT)


async def test_a_call_an_event_a_task_an_agent_by_a2a_a_tool_and_a_model_are_one_trace(
    caravan: Caravan,
) -> None:
    trace = secrets.token_hex(16)
    caravan.provider.reset()
    headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    assert await caravan.client.request("hop-1", "publish", headers=headers) == trace
    await caravan.noted("asked")
    asked = await caravan.provider.requests()
    assert [each["headers"]["traceparent"].split("-")[1] for each in asked[-1:]] == [trace]
    assert not {name for name in asked[-1]["headers"] if name.startswith("x-weft-")}
    seen = {what: caravan.journal.of(what) for what in ("call", "event", "task", "a2a", "tool")}
    assert seen == {
        "call": [["hop-1", trace]],
        "event": [["hop-2", trace]],
        "task": [["hop-3", trace]],
        "a2a": [["hop-4", trace]],
        "tool": [["hop-5", trace]],
    }, caravan.journal.file.read_text()
