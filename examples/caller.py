"""A script that finds agents and calls them.

weft run -- python examples/caller.py "some text"
"""

from __future__ import annotations

import asyncio
import sys

from weft import Mesh, MeshError


async def main(text: str) -> None:
    """Print who is there, a summary, and a chat."""
    async with Mesh() as mesh:
        for instance in await mesh.discover():
            print(instance.type, instance.id, instance.status, *sorted(instance.capabilities))
        print(await mesh.request("summarize.cap", "summarize", text=text, result_type=str))
        async for word in mesh.stream("chatter", "chat", prompt=text, item_type=str):
            print(word, end=" ", flush=True)
        print()


if __name__ == "__main__":
    try:
        asyncio.run(main(" ".join(sys.argv[1:]) or "the quick brown fox jumps over the lazy dog"))
    except MeshError as error:
        sys.exit(f"{error.title()}: {error.detail}")
