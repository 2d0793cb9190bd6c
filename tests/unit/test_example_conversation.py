"""The example of an agent that remembers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from weft.model.manifest import check_together, parse_documents
from weft.testing import InMemoryMesh

EXAMPLE = Path(__file__).parents[2] / "examples" / "conversation"


async def test_the_tutor_remembers_a_conversation_whichever_instance_is_asked() -> None:
    spec = importlib.util.spec_from_file_location("tutor", EXAMPLE / "tutor.py")
    assert spec is not None
    assert spec.loader is not None
    tutor = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tutor)
    async with InMemoryMesh() as mesh:
        first, _ = mesh.add(tutor.agent, instances=2)

        async def ask(question: str, context: str) -> str:
            headers = {"x-weft-context": context}
            return str(await mesh.client.request("tutor", "ask", question=question, headers=headers))

        assert await ask("why?", "a") == "Hello."
        assert await ask("how?", "a") == "You asked 1 things before, the last one 'why?'."
        mesh.kill(first)
        assert await ask("when?", "a") == "You asked 2 things before, the last one 'how?'."
        assert await ask("why?", "b") == "Hello."
        assert (await mesh.client.context("a").state()).value == {"questions": 3}


def test_its_manifest_is_valid() -> None:
    manifest = EXAMPLE / "mesh.yaml"
    check_together(parse_documents(manifest.read_text(), manifest.name))
