"""Asks an A2A agent, by nothing but its name: `weft run -- python examples/a2a/ask.py TEXT`."""

import asyncio
import sys

from a2a.client import create_client
from a2a.helpers import new_text_message
from a2a.types import Role, SendMessageRequest


async def main(text: str) -> None:
    """Print what the agent answers."""
    client = await create_client("http://words.mesh")
    message = new_text_message(text, role=Role.ROLE_USER)
    async for event in client.send_message(SendMessageRequest(message=message)):
        for part in event.artifact_update.artifact.parts:
            print(part.text)


asyncio.run(main(" ".join(sys.argv[1:])))
