"""The gateway's process, put together: beside a sidecar, which gives it identity and Envoy."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from urllib.parse import urlencode

from pydantic import ValidationError
from pydantic_core import to_json

from weft.aio.tasks import TaskOwner
from weft.errors import Denied, InvalidRequest, MeshError, Unavailable
from weft.gateway.app import create_app
from weft.gateway.draining import Draining
from weft.gateway.listing import TaskQuery
from weft.gateway.parts import GatewayParts
from weft.gateway.tokens import TokenVerifier
from weft.gateway.webhook_delivery import WebhookDelivery
from weft.gateway.webhook_request import WebhookClient, webhook_trust
from weft.gateway.webhook_signature import WebhookSigner
from weft.messaging.control import Ask
from weft.model.access import Action
from weft.model.agent import Status
from weft.model.api_key import ApiKey
from weft.model.decision import TargetKind
from weft.model.gateway import GatewaySpec
from weft.model.spiffe import SpiffeId
from weft.sdk.mesh import Mesh
from weft.sdk.port import port_from
from weft.sdk.server import bind, serving_http
from weft.tasks.listing import TaskPage
from weft.tasks.records import parse_task

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"

REFRESH_INTERVAL = 2.0
"""Seconds between two looks at what the gateway works by: a key that was deleted is good for so long."""

LOOK_AGAIN_INTERVAL = 0.5
"""Seconds between two looks because of unknown keys, and for one: made-up keys shall cost little."""

START_TIMEOUT = 60.0
"""Seconds in which the control plane must have told the gateway what it works by."""

DRAIN_TIMEOUT = 10.0
"""Seconds that webhooks under way have to be done with when the gateway stops."""

_KINDS = {
    Action.SUBMIT: TargetKind.QUEUE,
    Action.CONSUME: TargetKind.QUEUE,
    Action.PUBLISH: TargetKind.TOPIC,
    Action.SUBSCRIBE: TargetKind.TOPIC,
}


class Configuration:
    """What a gateway works by, as the control plane told it last. Keeps on while that is away."""

    def __init__(self, name: str, instance: str, mesh: Mesh, ask: Ask, draining: Draining) -> None:
        self.name = name
        self.spec = GatewaySpec()
        self.keys: Mapping[str, ApiKey] = {}
        self.webhook_secret = b""
        self.instances = 1
        self._instance = instance
        self._mesh = mesh
        self._ask = ask
        self._draining = draining
        self._look_again_at = 0.0

    async def load(self) -> None:
        """Ask for everything once. Raises MeshError."""
        answer = await self._ask("GET", f"/v1/gateways/{self.name}/configuration", None)
        try:
            self.spec = GatewaySpec.model_validate(answer["spec"])
            keys = [ApiKey.model_validate(each) for each in answer["keys"]]
            self.webhook_secret = bytes.fromhex(answer["webhookSecret"])
        except (ValidationError, KeyError, TypeError, ValueError) as error:
            # Not one key more than was told, and none that this version does not fully understand.
            raise Unavailable(
                f"the control plane's configuration of gateway {self.name!r} makes no sense"
            ) from error
        self.keys = {each.sha256: each for each in keys}
        await self._look_around()

    async def look_again(self) -> None:
        """Ask again, for a key that nobody knows: unless somebody did a moment ago."""
        now = asyncio.get_running_loop().time()
        if now < self._look_again_at:
            return
        self._look_again_at = now + LOOK_AGAIN_INTERVAL
        try:
            async with asyncio.timeout(LOOK_AGAIN_INTERVAL):
                await self.load()
        except (MeshError, TimeoutError):
            logger.info("an unknown API key could not be asked about")

    async def follow(self) -> None:
        """Ask again and again, for ever."""
        while True:
            await asyncio.sleep(REFRESH_INTERVAL)
            try:
                await self.load()
            except MeshError as error:
                logger.warning("the gateway works by what it knew before: %s", error.detail)

    async def _look_around(self) -> None:
        found = await self._mesh.discover(self.name, status=None)
        self.instances = max(1, sum(each.status is Status.HEALTHY for each in found))
        if any(each.id == self._instance and each.status is Status.DRAINING for each in found):
            self._draining.begin()


async def run_gateway(environ: Mapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT. `environ` is what the sidecar gave this process.

    Raises Unavailable if it has no sidecar, or the mesh cannot be reached; Denied if it is no declared
    Gateway; Conflict if its port is taken.
    """
    name, instance = environ.get("WEFT_TYPE", ""), environ.get("WEFT_INSTANCE", "")
    if not name:
        raise Unavailable("a gateway needs a sidecar: start it with `weft gateway`, or declare a Gateway")
    draining = Draining()
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(Mesh())
        membership = await mesh.membership()
        ask = membership.directory.ask
        mesh.tracer.name(name)
        configuration = Configuration(name, instance, mesh, ask, draining)
        await _load(configuration)
        verifier = TokenVerifier()
        stack.push_async_callback(verifier.aclose)
        signer = WebhookSigner(configuration.webhook_secret)
        owner = await stack.enter_async_context(TaskOwner("gateway"))
        owner.start(configuration.follow(), name="follow the configuration", endless=True)
        parts = GatewayParts(
            name=name,
            spec=lambda: configuration.spec,
            keys=lambda: configuration.keys,
            look_again=configuration.look_again,
            tasks=membership.tasks,
            tracer=mesh.tracer,
            list_tasks=_Listing(name, ask),
            allowed=_Allowed(name, ask),
            signer=signer,
            events=membership.events,
            metrics=membership.metrics,
            ready=lambda: "" if membership.store.connected else "NATS cannot be reached",
            share=lambda: configuration.instances,
            draining=draining,
            verifier=verifier,
        )
        delivery = WebhookDelivery(
            membership.broker,
            membership.tasks,
            name,
            lambda: configuration.spec.webhooks,
            signer,
            WebhookClient(webhook_trust()),
            metrics=membership.metrics.registry,
            tracer=mesh.tracer,
        )
        owner.start(_keep_delivering(delivery), name="webhooks")
        await _serve(parts, port_from(environ))
        await delivery.drained(DRAIN_TIMEOUT)


async def _load(configuration: Configuration) -> None:
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while True:
                try:
                    await configuration.load()
                except Unavailable as error:
                    logger.warning("not started yet: %s", error.detail)
                    await asyncio.sleep(1.0)
                else:
                    return
    except TimeoutError as error:
        raise Unavailable(f"the control plane did not answer within {START_TIMEOUT:g} s") from error


async def _keep_delivering(delivery: WebhookDelivery) -> None:
    while True:
        try:
            await delivery.run()
        except (Unavailable, Denied) as error:  # Denied: its rights are just being given to it
            logger.warning("webhooks wait: %s", error.detail)
            await asyncio.sleep(1.0)
        else:
            return


async def _serve(parts: GatewayParts, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listener = bind(HOST, port)
    async with serving_http(create_app(parts), listener):
        logger.info("gateway %r listens at http://%s:%d", parts.name, HOST, port)
        await stop.wait()
        parts.draining.begin()


class _Listing:
    """Lists tasks by asking the control plane."""

    def __init__(self, name: str, ask: Ask) -> None:
        self._name = name
        self._ask = ask

    async def __call__(self, query: TaskQuery) -> TaskPage:
        given = {
            "queue": query.queue,
            "state": query.state,
            "limit": query.limit,
            "before": query.before,
            "submitter": query.submitter or None,
        }
        parameters = urlencode({key: value for key, value in given.items() if value is not None})
        answer = await self._ask("GET", f"/v1/gateways/{self._name}/tasks?{parameters}", None)
        try:
            tasks = tuple(parse_task(to_json(each)) for each in answer["items"])
            return TaskPage(tasks, answer["next"])
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable("the control plane's list of tasks makes no sense") from error


class _Allowed:
    """Asks the control plane what the policies come to."""

    def __init__(self, name: str, ask: Ask) -> None:
        self._name = name
        self._ask = ask

    async def __call__(self, member: SpiffeId, action: Action, name: str) -> bool:
        kind = _KINDS.get(action)
        if kind is None:
            raise InvalidRequest(f"{action} is nothing that is done by way of a gateway")
        body = {"caller": str(member), "action": action.value, "kind": kind.value, "name": name}
        answer = await self._ask("POST", f"/v1/gateways/{self._name}/allowed", body)
        return isinstance(answer, dict) and answer.get("allowed") is True
