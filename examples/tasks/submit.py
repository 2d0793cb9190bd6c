"""A script that submits a task, follows it, and prints its result.

weft run -- python examples/tasks/submit.py "why is the sky blue"
"""

from __future__ import annotations

import asyncio
import sys

from weft import Mesh, MeshError


async def main(question: str) -> None:
    """Submitted twice with the same key, it is the same task, whether it has been done meanwhile or not."""
    async with Mesh() as mesh:
        task = await mesh.submit("research", question=question, idempotency_key=question, deadline=60)
        async for news in task.updates():
            if news.event is not None:
                print(news.event.kind, news.event.data)
            elif news.task is not None:
                print(news.task.state)
        print(await task.result())


if __name__ == "__main__":
    try:
        asyncio.run(main(" ".join(sys.argv[1:])))
    except MeshError as error:
        sys.exit(f"{error.title()}: {error.detail}")
