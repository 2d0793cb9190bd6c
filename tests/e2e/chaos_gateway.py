"""A gateway of the chaos tests: `python -m tests.e2e.chaos_gateway PLAN PORT`, until it is killed.

It is the gateway's application as it is, over the store and the broker; what a control plane would tell it is
made up.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from tests.e2e.chaos_plan import QUEUE, SPEC, Plan

from weft.errors import NotFound
from weft.gateway.app import create_app
from weft.gateway.listing import TaskQuery
from weft.gateway.parts import GatewayParts
from weft.gateway.webhook_signature import WebhookSigner
from weft.model.access import Action
from weft.model.api_key import ApiKey
from weft.model.gateway import GatewaySpec, Rate
from weft.model.queue import QueueSpec
from weft.model.spiffe import SpiffeId
from weft.sdk.server import bind, serving_http
from weft.tasks.client import TaskClient
from weft.tasks.listing import TaskPage

HOST = "127.0.0.1"
NAME = "public"


async def serve(plan: Plan, port: int) -> None:
    """Serve, without end."""
    store, broker = await plan.opened(f"gateway-{port}")
    tasks = await TaskClient.open(store, broker, _queue, submitter=f"spiffe://weft.local/agent/{NAME}/g-1")
    key = ApiKey(name="customer", sha256=plan.key, created_at=time.time())

    async def listing(query: TaskQuery) -> TaskPage:
        return await tasks.list(query.queue, state=query.state, limit=query.limit, before=query.before)

    parts = GatewayParts(
        name=NAME,
        spec=lambda: GatewaySpec(rate=Rate(requests=1_000_000)),
        keys=lambda: {key.sha256: key},
        tasks=tasks,
        list_tasks=listing,
        allowed=_allowed,
        signer=WebhookSigner(bytes(32)),
    )
    async with serving_http(create_app(parts), bind(HOST, port)):
        await asyncio.Event().wait()


async def _queue(name: str) -> QueueSpec:
    if name != QUEUE:
        raise NotFound(f"there is no queue {name!r}")
    return SPEC


async def _allowed(_member: SpiffeId, _action: Action, _name: str) -> bool:
    return False


if __name__ == "__main__":
    asyncio.run(serve(Plan.read(Path(sys.argv[1])), int(sys.argv[2])))
