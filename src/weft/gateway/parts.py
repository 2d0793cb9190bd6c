"""What a gateway's endpoints work on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from weft.events.publisher import EventPublisher
from weft.gateway.authentication import Authentication
from weft.gateway.caller import Caller
from weft.gateway.draining import Draining
from weft.gateway.listing import ListTasks
from weft.gateway.places import Places
from weft.gateway.rate_limit import RateLimits
from weft.gateway.rights import Allowed, Rights
from weft.gateway.tokens import TokenVerifier
from weft.gateway.webhook_address import Lookup, system_lookup
from weft.gateway.webhook_signature import WebhookSigner
from weft.model.api_key import ApiKey
from weft.model.gateway import GatewaySpec
from weft.tasks.client import TaskClient
from weft.tracing.tracer import NO_TRACER, Tracer
from weft.work.metrics import WorkMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayParts:
    """What a gateway is put together from. Functions are asked at every request: what they say may change."""

    name: str
    """Of the Gateway."""
    spec: Callable[[], GatewaySpec]
    keys: Callable[[], Mapping[str, ApiKey]]
    """API keys that are good now, by the SHA-256 of the key."""
    tasks: TaskClient
    list_tasks: ListTasks
    allowed: Allowed
    """Asked about callers from inside the mesh."""
    signer: WebhookSigner
    """Of the mesh: every gateway must have the same, since any of them sends a task's webhook."""
    tracer: Tracer = NO_TRACER
    events: EventPublisher | None = None
    """None: nothing is published by this gateway."""
    metrics: WorkMetrics = field(default_factory=WorkMetrics)
    """What it counts."""
    ready: Callable[[], str] = lambda: ""
    """Why it cannot serve now; empty if it can."""
    look_again: Callable[[], Awaitable[None]] | None = None
    """Brings `keys` up to date, for a key that is not among them; asked as often as unknown ones come."""
    share: Callable[[], int] = lambda: 1
    """How many instances the gateway has, this one included: they share the limits of rates evenly."""
    draining: Draining = field(default_factory=Draining)
    verifier: TokenVerifier = field(default_factory=TokenVerifier)
    """To be closed by who made it."""
    lookup: Lookup = system_lookup
    """How hosts of webhooks are looked up when they are submitted."""


class Gateway:
    """One gateway at work."""

    def __init__(self, parts: GatewayParts) -> None:
        self.parts = parts
        self.authentication = Authentication(
            parts.name, parts.spec, parts.keys, parts.verifier, look_again=parts.look_again
        )
        self.limits = RateLimits(parts.share)
        self.rights = Rights(parts.spec, parts.allowed)
        self.places = Places()


# Coroutines, though they wait for nothing: FastAPI would run plain functions in threads.
async def _gateway(request: Request) -> Gateway:
    return cast(Gateway, request.app.state.gateway)


CurrentGateway = Annotated[Gateway, Depends(_gateway)]
"""An endpoint's parameter of this type gets the Gateway."""


async def _caller(request: Request) -> Caller:
    return cast(Caller, request.state.caller)


CurrentCaller = Annotated[Caller, Depends(_caller)]
"""An endpoint's parameter of this type gets who calls, whom the Gate has let in."""
