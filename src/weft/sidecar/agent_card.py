"""Reading an agent's A2A card."""

from __future__ import annotations

import asyncio
from typing import Any

from weft.errors import AgentFailed, Interrupted, TimedOut, Unavailable
from weft.model.agent_card import CARD_PATH, read_card
from weft.model.node import Address
from weft.model.offer import MAX_CARD_BYTES
from weft.sidecar.http import BadAnswer, exchange, why

READ_TIMEOUT = 10.0
"""Seconds in which the card must be there."""

_NONE = (404, 405, 410, 501)


async def read_agent_card(agent: Address, *, timeout: float = READ_TIMEOUT) -> dict[str, Any] | None:
    """The card of the agent, or None: it says that it has none.

    Raises MeshError, saying for people what went wrong: TimedOut, Unavailable, Interrupted or AgentFailed.
    """
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(agent.host, agent.port)
            answer = await exchange(reader, writer, CARD_PATH, host=str(agent), max_body=MAX_CARD_BYTES)
    except TimeoutError as error:
        raise TimedOut(f"its card did not come within {timeout:g} s") from error
    except BadAnswer as error:
        raise Interrupted(f"its card cannot be read: {error}") from error
    except OSError as error:
        raise Unavailable(f"its card cannot be read: {why(error)}") from error
    if answer.status in _NONE:
        return None
    if not answer.ok:
        raise AgentFailed(f"its card cannot be read: it answered {answer.status}")
    try:
        return read_card(answer.body)
    except ValueError as error:
        raise AgentFailed(f"its card is not taken: {error}") from error
