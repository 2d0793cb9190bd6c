"""The server says that its lists have changed: clients of both generations hear of it."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Any, Final

import mcp_types as types
from mcp import Client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    PromptsListChanged,
    ResourcesListChanged,
    ServerEvent,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

logger = logging.getLogger(__name__)

MAX_SESSIONS: Final = 1000
"""Clients of the older generation that hear of changes; those that came first hear of none any more."""

_SEND_TIMEOUT = 5.0

_EVENTS: dict[type[BaseModel], ServerEvent] = {
    types.ToolListChangedNotification: ToolsListChanged(),
    types.PromptListChangedNotification: PromptsListChanged(),
    types.ResourceListChangedNotification: ResourcesListChanged(),
}


class Changes:
    """Takes what the server says, and tells it to those who asked for it."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        """Clients without sessions subscribe here."""
        self._sessions: OrderedDict[str, ServerSession] = OrderedDict()

    async def heard(self, message: Any) -> None:
        """Take what a server of the older generation says of its own accord."""
        event = _EVENTS.get(type(message))
        if event is not None:
            await self._tell(event)

    async def follow(self, client: Client) -> None:
        """Take what a server of the newer generation says, until it ends that, or cannot do it at all."""
        capabilities = client.server_capabilities
        try:
            async with client.listen(
                tools_list_changed=capabilities.tools is not None,
                prompts_list_changed=capabilities.prompts is not None,
                resources_list_changed=capabilities.resources is not None,
            ) as events:
                async for event in events:
                    await self._tell(event)
        except ListenNotSupportedError:
            pass  # it will say so by itself
        except (MCPError, SubscriptionLost, TimeoutError) as error:
            logger.info("the server tells of no changes of its lists: %s", error)

    async def begun(self, context: ServerRequestContext[Any, Any], _: BaseModel) -> None:
        """Remember the session of a client that has just begun one."""
        key = context.request.headers.get("mcp-session-id") if context.request is not None else None
        if key is not None:
            self._sessions[key] = context.session
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)

    async def _tell(self, event: ServerEvent) -> None:
        await self.bus.publish(event)
        await asyncio.gather(*(_send(each, event) for each in self._sessions.values()))


async def _send(session: ServerSession, event: ServerEvent) -> None:
    try:
        async with asyncio.timeout(_SEND_TIMEOUT):
            match event:
                case ToolsListChanged():
                    await session.send_tool_list_changed()
                case PromptsListChanged():
                    await session.send_prompt_list_changed()
                case ResourcesListChanged():
                    await session.send_resource_list_changed()
    except TimeoutError:
        logger.debug("a client does not take that a list has changed")
