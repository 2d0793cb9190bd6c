"""An agent of a row of agents, each of which calls the next: `python caravan.py JOURNAL`.

The journal gets `<what> <type>`, and where something is told of a call, its trace: `cancelled hop-5`,
`task hop-3 <trace>`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import httpx
from openai import AsyncOpenAI, OpenAIError

from weft import Agent, Mesh, ReceivedEvent, current

JOURNAL = sys.argv[1]
TYPE = os.environ["WEFT_TYPE"]

agent = Agent(TYPE, concurrency=32)


def note(*words: object) -> None:
    """One line in one write."""
    descriptor = os.open(JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{' '.join(map(str, words))}\n".encode())
    os.close(descriptor)


def told() -> dict[str, Any]:
    """What this hop knows of the call that it handles."""
    here = current()
    return {
        "type": TYPE,
        "hops": here.hops,
        "trace": here.trace,
        "deadline": here.headers.get("x-weft-deadline"),
        "remaining": here.remaining(),
        "budget": here.budget,
        "baggage": dict(here.baggage),
    }


@agent.handles("walk")
async def walk(way: list[str], then: str, mesh: Mesh) -> list[Any]:
    """Go on to the next of `way`; at its end do what `then` says."""
    try:
        here = told()
        if way:
            return [here, *await mesh.request(way[0], "walk", way=way[1:], then=then)]
        return [here, await END[then](mesh)]
    except asyncio.CancelledError:
        note("cancelled", TYPE)
        raise
    finally:
        note("ended", TYPE)


@agent.handles("late")
def late(until: float) -> str:
    """Work on past the deadline, as only a thread can, and call somebody then."""
    time.sleep(max(0.0, until - time.time()))
    answer = httpx.post(
        "http://hop-1.mesh/rpc", json={"kind": "walk", "payload": {"way": [], "then": "stop"}}
    )
    note("late", answer.status_code, answer.headers["x-weft-error"])
    return answer.text


@agent.handles("ping")
async def ping(to: str, back: str, mesh: Mesh) -> None:
    """Call another that calls back."""
    await mesh.request(to, "ping", to=back, back=to)


@agent.handles("mark")
async def mark(word: str = "mark") -> str:
    """Note which call tree this is."""
    note(word, TYPE, current().trace)
    return TYPE


@agent.handles("publish")
async def publish(mesh: Mesh) -> str | None:
    """Publish an event; what follows of it is for others."""
    note("call", TYPE, current().trace)
    await mesh.publish("news", {"text": "it has happened"})
    return current().trace


async def stop(_mesh: Mesh) -> str:
    return "stopped"


async def sleep(_mesh: Mesh) -> None:
    note("sleeping", TYPE)
    await asyncio.Event().wait()


async def be_late(mesh: Mesh) -> None:
    until = (current().deadline or 0.0) + 0.2
    await mesh.request(TYPE, "late", until=until)


async def ask(mesh: Mesh) -> dict[str, Any]:
    """Ask a model, and tell what is left of the budget."""
    before = await mesh.budget()
    try:
        async with AsyncOpenAI(max_retries=0) as models:
            hello: Any = [{"role": "user", "content": "Hello, how are you today?"}]
            await models.chat.completions.create(model="plain", messages=hello, max_tokens=20)
        refused = None
    except OpenAIError as error:
        refused = str(error)
    after = await mesh.budget()
    return {"before": before.tokens, "refused": refused, "after": after.tokens, "parts": len(after.parts)}


END = {"stop": stop, "sleep": sleep, "late": be_late, "ask": ask}

if TYPE == "hop-2":

    @agent.on("news")
    async def news(_event: ReceivedEvent, mesh: Mesh) -> None:
        """Of an event make a task."""
        note("event", TYPE, current().trace)
        await mesh.submit("jobs")


if TYPE == "hop-3":

    @agent.task("jobs")
    async def job(mesh: Mesh) -> None:
        """Speak A2A, use a tool, and ask a model."""
        note("task", TYPE, current().trace)
        message = {
            "messageId": "m-1",
            "role": "ROLE_USER",
            "parts": [{"text": "a2a"}],
            "metadata": {"skill": "mark"},
        }
        request = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
        async with httpx.AsyncClient(timeout=60.0) as http:
            answer = await http.post("http://hop-4.mesh/a2a", json=request, headers={"a2a-version": "1.0"})
        note("a2a-answer", TYPE, answer.status_code, "".join(answer.text.split())[:400])
        try:
            await mesh.call_tool("hop-5_mark", word="tool")
        except Exception as error:  # noqa: BLE001 - it is told, and missed by the test
            note("tool-failed", TYPE, repr(error))
        await ask(mesh)
        note("asked", TYPE, current().trace)


if __name__ == "__main__":
    agent.run()
