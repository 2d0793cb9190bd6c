"""The agents of a mesh whose traces are looked at: `python traced.py DIRECTORY`.

| type | does |
|---|---|
| `clerk` | tasks of `jobs`: has a writer write, and publishes that it has |
| `writer` | fails at first, whichever instance is asked; then asks a tool, a model and an agent of others' |
| `desk` | is a tool, and takes the events of `news` |
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI

from weft import Agent, AgentError, Mesh, ReceivedEvent, current

DIRECTORY = Path(sys.argv[1])
TYPE = os.environ["WEFT_TYPE"]
SECRET = "weft_0123456789abcdef"

agent = Agent(TYPE, capabilities=["stamping"] if TYPE == "desk" else [])
logger = logging.getLogger("traced")

if TYPE == "clerk":

    @agent.task("jobs")
    async def job(mesh: Mesh, text: str) -> str:
        """The first step of all."""
        logger.info("a job with %s", SECRET)
        key = f"job-{current().trace}"
        written = await mesh.request("writer", "write", text=text, idempotency_key=key, timeout=60)
        await mesh.publish("news", {"text": written})
        return str(written)


if TYPE == "writer":

    @agent.handles("write")
    async def write(mesh: Mesh, text: str) -> str:
        """All the rest."""
        try:
            (DIRECTORY / str(current().trace)).touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            raise AgentError("not now", status=503)
        stamped = await mesh.call_tool("stamp", text=text)
        async with AsyncOpenAI(max_retries=0) as models:
            hello: Any = [{"role": "user", "content": text}]
            await models.chat.completions.create(model="plain", messages=hello, max_tokens=5)
        async with httpx.AsyncClient(timeout=60.0) as http:
            elder = (await http.post("http://elder.mesh/say", content=text)).raise_for_status().text
        return f"{stamped.text} {elder}"


if TYPE == "desk":

    @agent.handles("stamp")
    async def stamp(text: str) -> str:
        """Stamp a text."""
        return f"[{text}]"

    @agent.on("news")
    async def news(event: ReceivedEvent) -> None:
        """Read."""
        (DIRECTORY / f"read-{current().trace}").write_text(str(event.data))


if __name__ == "__main__":
    agent.run()
