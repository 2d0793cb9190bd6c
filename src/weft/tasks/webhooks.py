"""The ends of tasks, put into the queue of webhooks, from which gateways post them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from pydantic_core import to_json

from weft.errors import InvalidRequest
from weft.messaging.broker import Broker
from weft.messaging.message import Message
from weft.model.message_subjects import WEBHOOK_QUEUE
from weft.model.task import Task

MAX_URL_LENGTH = 2048

_NONE: Mapping[str, str] = MappingProxyType({})


def check_webhook(url: str) -> str:
    """Return `url` if ends of tasks might be posted there; else raise InvalidRequest.

    Whether they may, which depends on where its host is, only gateways know.
    """
    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or len(url) > MAX_URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidRequest(
            f"a webhook is an http or https URL of {MAX_URL_LENGTH} characters at most, in printable ASCII"
        )
    return url


TRACE_HEADERS = ("traceparent", "tracestate")
"""Headers of a task's message that go along with what is told of its end."""


async def announce_end(broker: Broker, task: Task, headers: Mapping[str, str] = _NONE) -> None:
    """Have the task's webhook, if it has one, told of its end; `headers` are those of the task's message.

    May be done more than once: the message's id is the same each time. Raises what `Broker.enqueue` does.
    """
    if task.webhook:
        body = to_json({"task": task.id, "url": task.webhook})
        trace = {name: headers[name] for name in TRACE_HEADERS if name in headers}
        await broker.enqueue(WEBHOOK_QUEUE, Message(f"{task.id}-{task.state}", body, trace))
