"""How to test agents: a whole mesh in the test's own process, without ports and sidecars.

pytest examples/test_my_agent.py     (with pytest-asyncio and asyncio_mode = auto)
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from weft import Agent, AgentError, AgentFailed, Mesh, NoHealthyAgent, TaskRun
from weft.testing import InMemoryMesh, QueueSpec

translator = Agent("translator", capabilities=["translate"])
editor = Agent("editor")

NO_WAIT = QueueSpec.model_validate({"backoff": {"initial": "0s"}})
"""A queue as in a manifest, but for the pauses between attempts."""


@translator.handles("translate")
async def translate(text: str) -> str:
    """Upper case is a language too."""
    if not text:
        raise AgentError("nothing to translate", status=422)
    return text.upper()


@editor.handles("publish")
async def publish(text: str, mesh: Mesh) -> str:
    """Publishing takes a translator."""
    return "Extra! " + await mesh.request("translate.cap", "translate", text=text, result_type=str)


@editor.task("print-runs")
async def print_run(copies: int, run: TaskRun, mesh: Mesh) -> int:
    """Printing takes its time, and at times two attempts."""
    if run.attempt == 1:
        raise RuntimeError("paper jam")
    await mesh.publish("papers.printed", {"copies": copies})
    return copies


@pytest.fixture
async def mesh() -> AsyncIterator[InMemoryMesh]:
    async with InMemoryMesh(queues={"print-runs": NO_WAIT}, topics=["papers"]) as mesh:
        mesh.add(translator, instances=2)
        mesh.add(editor)
        yield mesh


async def test_the_editor_publishes_a_translation(mesh: InMemoryMesh) -> None:
    assert await mesh.client.request("editor", "publish", text="news") == "Extra! NEWS"


async def test_an_empty_text_is_the_translators_own_error(mesh: InMemoryMesh) -> None:
    with pytest.raises(AgentFailed, match="nothing to translate") as caught:
        await mesh.client.request("translator", "translate", text="")
    assert caught.value.agent_status == 422


async def test_one_translator_is_enough_and_none_is_an_error(mesh: InMemoryMesh) -> None:
    mesh.kill("translator-1.translator")
    assert await mesh.client.request("translator", "translate", text="a") == "A"
    mesh.kill("translator-2.translator")
    with pytest.raises(NoHealthyAgent):
        await mesh.client.request("translator", "translate", text="a")


async def test_a_task_is_tried_again_and_its_end_is_an_event(mesh: InMemoryMesh) -> None:
    task = await mesh.client.submit("print-runs", copies=500)
    assert await task.result(timeout=30) == 500
    assert (await task.status()).attempts == 2
    assert [each.data for each in await mesh.events("papers")] == [{"copies": 500}]
