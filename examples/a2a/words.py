"""An A2A agent made with the official SDK alone. It believes to be at localhost, and in a mesh it may."""

import os

import uvicorn
from a2a.helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part
from starlette.applications import Starlette

PORT = int(os.environ.get("PORT", "9999"))

CARD = AgentCard(
    name="Words",
    description="Knows how many words a text has",
    version="1",
    capabilities=AgentCapabilities(streaming=True),
    default_input_modes=["text/plain"],
    default_output_modes=["text/plain"],
    skills=[AgentSkill(id="count_words", name="Count", description="Counts words", tags=["counting"])],
    supported_interfaces=[
        AgentInterface(url=f"http://localhost:{PORT}", protocol_binding="JSONRPC", protocol_version="1.0")
    ],
)


class Words(AgentExecutor):
    """The agent."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Answer one message."""
        assert context.message is not None  # noqa: S101
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.add_artifact([Part(text=f"{len(context.get_user_input().split())} words")])
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Nothing takes so long."""


if __name__ == "__main__":
    handler = DefaultRequestHandler(agent_executor=Words(), task_store=InMemoryTaskStore(), agent_card=CARD)
    app = Starlette(routes=[*create_agent_card_routes(CARD), *create_jsonrpc_routes(handler, "/")])
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning")
