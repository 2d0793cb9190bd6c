"""Telling callers of the ends of their tasks: the messages of the queue of webhooks, each one POST.

A message is done with when its receiver has answered 2xx. Else it comes again, ever later, until it has been
tried as often as the gateway's `webhooks.maxAttempts` says; then it goes to the queue's dead letters with its
reason. It may be sent more than once: its `webhook-id` is the same every time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace

from prometheus_client import CollectorRegistry, Counter
from pydantic_core import from_json, to_json

from weft.errors import InvalidRequest, MeshError, NotFound, TooMany
from weft.gateway.caller import gateway_of
from weft.gateway.places import Places
from weft.gateway.webhook_address import parse_receiver
from weft.gateway.webhook_request import WebhookClient
from weft.gateway.webhook_signature import WebhookSigner
from weft.messaging.broker import Broker, Delivery
from weft.messaging.message import Message
from weft.messaging.middleware.acknowledgement import acknowledging
from weft.messaging.middleware.extension import extending
from weft.messaging.middleware.retries import retrying
from weft.messaging.processing import Processor, stacked
from weft.model.gateway import WebhookSpec
from weft.model.message_subjects import WEBHOOK_QUEUE
from weft.model.redelivery import Backoff
from weft.model.task import Task
from weft.tasks.client import TaskClient
from weft.tasks.documents import task_document
from weft.tracing.span import Kind, Span, Value
from weft.tracing.tracer import NO_TRACER, Tracer

CONCURRENCY = 64
"""Webhooks that one gateway sends at once."""

MOST_FOR_ONE = 48
"""Of these, as many as one receiver or one submitter may have: one that is slow never holds up all others."""

POSTPONED = 2.0
"""Seconds until a webhook is looked at again whose receiver or submitter has so many under way."""

BACKOFF = Backoff(initial=5.0, factor=3.0, longest=4 * 3600.0)
"""Pauses after failed attempts; ten attempts take about ten hours."""

ATTEMPTS_HEADER = "x-weft-attempts"
"""Of a message that was postponed: how many attempts were made before."""

_EXTENSION_INTERVAL = 10.0  # seconds; a third of the queue's visibility timeout
_MOST_DELIVERIES = 1000  # of one message, whatever became of it
_GONE = 410

logger = logging.getLogger(__name__)

MOST_PASSES = 500
"""How often a webhook is left to another gateway before it is given up; takes about eight hours."""

PASSES_HEADER = "x-weft-passes"
"""Of a message that was left to another gateway: how often so far."""

_LONGEST_PASS = 60.0


class NotTaken(MeshError):
    """The receiver has not answered 2xx."""

    code = "webhook-not-taken"
    status = 502


class GivenUp(InvalidRequest):
    """The webhook has been tried as often as it may be, or the receiver wants no more."""

    code = "webhook-given-up"


class WebhookDelivery:
    """Sends the webhooks of a mesh, beside other gateways that do the same."""

    def __init__(
        self,
        broker: Broker,
        tasks: TaskClient,
        gateway: str,
        rules: Callable[[], WebhookSpec],
        signer: WebhookSigner,
        client: WebhookClient,
        *,
        backoff: Callable[[int], float] = BACKOFF.pause,
        metrics: CollectorRegistry | None = None,
        tracer: Tracer = NO_TRACER,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`gateway` is whose this is, and `rules` where that lets webhooks go.

        Webhooks of tasks that were submitted at another gateway are left to that: its rules may be stricter.
        `backoff` gives the seconds to pause after each attempt, counted from 1.

        `metrics` gets `weft_webhooks_total{outcome}`, attempts by `taken`, `failed` and `given-up`.
        """
        self._broker = broker
        self._tasks = tasks
        self._gateway = gateway
        self._rules = rules
        self._signer = signer
        self._client = client
        self._tracer = tracer
        self._backoff = backoff
        self._clock = clock
        self._places = Places(per_caller=MOST_FOR_ONE)
        self._outcomes = Counter(
            "weft_webhooks", "Attempts to post the ends of tasks", ["outcome"], registry=metrics
        )
        self._processor: Processor | None = None

    async def run(self) -> None:
        """Send webhooks until drained. Raises Unavailable, Denied or NotFound if there is no such queue."""
        consumer = await self._broker.queue_consumer(WEBHOOK_QUEUE)
        try:
            self._processor = Processor(
                consumer,
                stacked(
                    self._deliver,
                    retrying(self._backoff, _MOST_DELIVERIES, self._give_up),
                    acknowledging(),
                    extending(_EXTENSION_INTERVAL),
                ),
                concurrency=CONCURRENCY,
                name="webhooks",
            )
            await self._processor.run()
        finally:
            await consumer.aclose()

    async def drained(self, timeout: float) -> None:
        """Take no more, finish within `timeout` seconds what is under way, hand back the rest."""
        if self._processor is not None:
            await self._processor.drained(timeout)

    async def _deliver(self, delivery: Delivery) -> None:
        """See to one message; it is done with when this returns."""
        task = await self._task(delivery.message)
        if task is None:
            return
        if gateway_of(task.submitter) not in {None, self._gateway}:
            await self._pass_on(delivery.message, task)
            return
        rules = self._rules()
        made = _counted(delivery.message, ATTEMPTS_HEADER) + delivery.deliveries
        receiver = parse_receiver(task.webhook, rules)
        try:
            with ExitStack() as places:
                places.enter_context(self._places.one(f"receiver {receiver.host}"))
                places.enter_context(self._places.one(f"submitter {task.submitter}"))
                with self._span(delivery.message, task, receiver.host, made) as span:
                    await self._post(task, rules, span)
        except TooMany:
            await self._postpone(delivery.message, ATTEMPTS_HEADER, made - 1, POSTPONED)
        except InvalidRequest:
            raise
        except MeshError as error:
            self._outcomes.labels("failed").inc()
            if made >= rules.max_attempts:
                raise GivenUp(f"{error.detail} (at attempt {made})") from error
            raise

    async def _pass_on(self, message: Message, task: Task) -> None:
        passes = _counted(message, PASSES_HEADER) + 1
        if passes > MOST_PASSES:
            raise GivenUp(f"no instance of the gateway of {task.submitter} has sent it")
        await self._postpone(message, PASSES_HEADER, passes, min(POSTPONED * passes, _LONGEST_PASS))

    async def _postpone(self, message: Message, counter: str, count: int, delay: float) -> None:
        headers = {**message.headers, counter: str(count)}
        await self._broker.enqueue(WEBHOOK_QUEUE, replace(message, headers=headers), delay=delay)

    async def _task(self, message: Message) -> Task | None:
        """The task that has ended; None if there is nothing to tell. Raises InvalidRequest, Unavailable."""
        try:
            task = await self._tasks.get(str(from_json(message.body)["task"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest("this is no announcement of a task's end") from error
        except NotFound:
            logger.info("webhook %s: the task is no longer kept", message.id)
            return None
        # The record says where to, not the message: more may put something into the queue.
        return task if task.webhook and task.state.terminal else None

    def _span(
        self, message: Message, task: Task, host: str, attempt: int
    ) -> AbstractContextManager[Span | None]:
        """Of one attempt. Receivers are outside of the mesh, and are not told of it."""
        attributes: dict[str, Value] = {
            "http.request.method": "POST",
            "server.address": host,
            "weft.task": task.id,
            "weft.attempt": attempt,
        }
        parent = message.headers.get("traceparent")
        return self._tracer.span(f"webhook {host}", Kind.CLIENT, parent, attributes)

    async def _post(self, task: Task, rules: WebhookSpec, span: Span | None) -> None:
        body = to_json(task_document(task))
        message_id = f"{task.id}-{task.state}"
        headers = self._signer.headers(task.submitter, message_id, int(self._clock()), body)
        status = await self._client.post(task.webhook, rules, headers, body)
        if span is not None:
            span.set("http.response.status_code", status)
        if status == _GONE:
            raise GivenUp("the receiver answered 410: it wants no more webhooks")
        if not 200 <= status < 300:
            raise NotTaken(f"the receiver answered with status {status}")
        self._outcomes.labels("taken").inc()

    async def _give_up(self, delivery: Delivery, error: BaseException) -> None:
        self._outcomes.labels("given-up").inc()
        await delivery.dead_letter(error.detail if isinstance(error, MeshError) else repr(error))


def _counted(message: Message, counter: str) -> int:
    given = message.headers.get(counter, "0")
    return int(given) if given.isdecimal() and len(given) < 6 else 0
