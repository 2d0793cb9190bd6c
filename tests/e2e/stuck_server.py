"""A server that takes connections and never says a word."""

from __future__ import annotations

import asyncio
import os


async def main() -> None:
    over = asyncio.Event()

    async def hang(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await over.wait()

    async with await asyncio.start_server(hang, "127.0.0.1", int(os.environ["PORT"])):
        await over.wait()


if __name__ == "__main__":
    asyncio.run(main())
