"""How to test agents: a whole mesh in the test's own process, without ports and sidecars.

pytest examples/test_my_agent.py     (with pytest-asyncio and asyncio_mode = auto)
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from weft import Agent, AgentError, AgentFailed, Mesh, NoHealthyAgent
from weft.testing import InMemoryMesh

translator = Agent("translator", capabilities=["translate"])
editor = Agent("editor")


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


@pytest.fixture
async def mesh() -> AsyncIterator[InMemoryMesh]:
    async with InMemoryMesh() as mesh:
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
