"""A foreign A2A server, as a2a-sdk makes it: `python a2a_agent.py`. It knows nothing of Weft but its port.

It echoes what it is told, word by word as artifacts where it streams. Its card says that it is elsewhere.
"""

from __future__ import annotations

import os

import uvicorn
from a2a.helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part
from starlette.applications import Starlette
from starlette.routing import Mount

ELSEWHERE = "http://elsewhere.invalid:1"


def _skill(identity: str, *tags: str) -> AgentSkill:
    return AgentSkill(id=identity, name=f"The skill {identity}", description="It echoes.", tags=tags)


CARD = AgentCard(
    name="Echo",
    description="Says it again",
    version="7",
    capabilities=AgentCapabilities(streaming=True, extended_agent_card=True),
    default_input_modes=["text/plain"],
    default_output_modes=["text/plain"],
    skills=[_skill("Say_It.Again", "speech", "Wörter"), _skill("!", "odd")],
    supported_interfaces=[
        AgentInterface(url=f"{ELSEWHERE}/a2a/rpc", protocol_binding="JSONRPC", protocol_version="1.0"),
        AgentInterface(url=f"{ELSEWHERE}/a2a", protocol_binding="HTTP+JSON", protocol_version="1.0"),
        AgentInterface(url=f"{ELSEWHERE}/a2a/rpc", protocol_binding="JSONRPC", protocol_version="0.3"),
        AgentInterface(url="elsewhere.invalid:50051", protocol_binding="GRPC", protocol_version="1.0"),
    ],
)


class Echo(AgentExecutor):
    """The agent."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Echo one message."""
        assert context.message is not None
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        for word in context.get_user_input().split():
            await updater.add_artifact([Part(text=word)], name="word")
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Nothing lasts."""


if __name__ == "__main__":
    handler = DefaultRequestHandler(agent_executor=Echo(), task_store=InMemoryTaskStore(), agent_card=CARD)
    below = [
        *create_jsonrpc_routes(handler, "/rpc", enable_v0_3_compat=True),
        *create_rest_routes(handler),
    ]
    app = Starlette(routes=[*create_agent_card_routes(CARD), Mount("/a2a", routes=below)])
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
