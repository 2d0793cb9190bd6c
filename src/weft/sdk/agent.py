"""An agent: handlers by kind of request, served over HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

import uvloop

from weft.errors import InvalidRequest
from weft.events.filters import parse_filter
from weft.events.subscriber import ReceivedEvent
from weft.model.names import check_name
from weft.model.subtopic import parse_topic_pattern
from weft.sdk.app import AgentApp
from weft.sdk.call_fields import call_fields
from weft.sdk.conversation import Conversation
from weft.sdk.handler import Handler, handler_of
from weft.sdk.health import HealthCheck
from weft.sdk.mesh import Mesh
from weft.sdk.port import port_from
from weft.sdk.server import bind, serving
from weft.sdk.settings import AgentSettings
from weft.sdk.wire import MAX_REQUEST_BYTES
from weft.sdk.work import EventFunction, TaskFunction
from weft.tasks.attempt import TaskRun
from weft.tracing.logs import start_logging
from weft.tracing.open_telemetry import permit

DEFAULT_HOST = "127.0.0.1"

logger = logging.getLogger("weft.agent")

Function = TypeVar("Function", bound=Callable[..., Any])
StreamFunction = TypeVar(
    "StreamFunction", bound=Callable[..., AsyncGenerator[Any, None] | AsyncIterator[Any]]
)
Check = TypeVar("Check", bound=Callable[[], Awaitable[object] | object])


class Agent:
    """A program that answers requests.

        agent = Agent("summarizer", capabilities=["summarize"])

        @agent.handles("summarize")
        async def summarize(text: str, length: int = 100) -> str:
            return text[:length]

        agent.run()

    A request's payload becomes the handler's keyword arguments, checked and converted by their annotations;
    a parameter annotated `Mesh` gets the agent's own client, one annotated `Conversation` what has been said
    by A2A. A handler that is not `async` runs in a thread. When the caller goes away, an async handler is
    cancelled.

    A request with an `Idempotency-Key` is answered once: see weft.sdk.deduplication. A stream is not
    remembered; its handler can tell a repetition by `current().idempotency_key`.
    """

    def __init__(
        self,
        type: str,  # noqa: A002 - what it is called everywhere
        *,
        capabilities: Iterable[str] = (),
        version: str = "",
        concurrency: int = 8,
        max_body_bytes: int = MAX_REQUEST_BYTES,
        drain_timeout: float = 30.0,
        a2a: bool = True,
        propagate: bool = True,
    ) -> None:
        """`type` and `capabilities` are names by which others find the agent (DNS labels).

        `concurrency` is how many requests it takes at once; those beyond are refused, so that the mesh tries
        another instance. `max_body_bytes` limits a request's body (default 10 MiB). `drain_timeout` is how
        many seconds requests in flight have to finish when the agent stops. With `a2a` its handlers are
        the skills of an A2A agent, at `/a2a`. With `propagate` what its handlers call in the mesh by httpx or
        aiohttp, and what is built on them, is told trace, deadline and budget, too. Raises InvalidRequest.
        """
        self.settings = AgentSettings(
            type,
            frozenset(capabilities),
            version,
            concurrency,
            max_body_bytes,
            drain_timeout,
            propagate=propagate,
        )
        self._handlers: dict[str, Handler] = {}
        self._a2a = a2a
        self._default: str | None = None
        self._checks: list[HealthCheck] = []
        self._tasks: dict[str, TaskFunction] = {}
        self._events: dict[tuple[str, bool], EventFunction] = {}

    def handles(self, kind: str, *, default: bool = False) -> Callable[[Function], Function]:
        """Make the decorated function the handler of requests of `kind`.

        Messages by A2A that name no skill are for the `default` one, if there are several. Raises TypeError
        if requests cannot be checked against its signature, ValueError if `kind` has a handler already, or
        another one is the default.
        """
        return self._register(kind, streams=False, default=default)

    def streams(self, kind: str, *, default: bool = False) -> Callable[[StreamFunction], StreamFunction]:
        """Make the decorated async generator the handler of requests of `kind`: its items become a stream.

        `default` is as with `handles`, and so is what it raises.
        """
        return self._register(kind, streams=True, default=default)

    def task(self, queue: str, *, concurrency: int | None = None) -> Callable[[Function], Function]:
        """Make the decorated function do the tasks of `queue`: what it returns is recorded as their result.

        A task's payload becomes its keyword arguments, as with `handles`; a parameter annotated `TaskRun`
        gets the task itself, to tell progress and partial results. It does as many tasks at once as the
        queue says, or `concurrency`. While it works, its lease is extended; when the task is cancelled, or
        too late, it is cancelled. What it raises is a failed attempt, tried again as the queue says; an
        InvalidRequest is not tried again.

        Raises TypeError if payloads cannot be checked against its signature, ValueError if `queue` has a
        function already, InvalidRequest if it is no name, or for a concurrency below 1.
        """
        check_name(queue, "queue")
        _check_concurrency(f"queue {queue!r}", concurrency)

        def register(function: Function) -> Function:
            if queue in self._tasks:
                raise ValueError(f"agent {self.settings.type!r} has a function for queue {queue!r} already")
            handler = handler_of(queue, function, streams=False, at_hand=(Mesh, TaskRun))
            self._tasks[queue] = TaskFunction(queue, handler, concurrency)
            return function

        return register

    def on(
        self,
        topic: str,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - what it is called everywhere
        every_instance: bool = False,
        concurrency: int = 8,
        since: datetime | int | None = None,
    ) -> Callable[[Function], Function]:
        """Make the decorated function get the events of `topic`: `orders`, `orders.created`, `orders.*`, `>`.

        Each event goes to one instance of this agent, or with `every_instance` to all. Its parameter
        annotated `ReceivedEvent` gets it. `filter` is one of CloudEvents' filter dialects, as in
        `{"prefix": {"type": "com.example."}}`. `since` is where the first subscription begins: a time or a
        sequence; if omitted, with what is published from then on. What the function raises is tried again as
        the topic says, and then is a dead letter.

        Functions whose patterns are of the same topic share one subscription, and the `since` of the first
        that has one; what several of them want they get one after another, and all again if one fails.

        Raises TypeError if the function does not take a ReceivedEvent, or more than that and a Mesh;
        ValueError if `topic` has a function already; InvalidRequest for a topic or filter that is none, or a
        concurrency below 1.
        """
        parse_topic_pattern(topic)
        _check_concurrency(f"topic {topic!r}", concurrency)
        parsed = parse_filter(filter) if filter is not None else None

        def register(function: Function) -> Function:
            if (topic, every_instance) in self._events:
                raise ValueError(f"agent {self.settings.type!r} has a function for topic {topic!r} already")
            handler = handler_of(topic, function, streams=False, at_hand=(Mesh, ReceivedEvent))
            if ReceivedEvent not in handler.given.values():
                raise TypeError(f"the function for topic {topic!r} needs a parameter annotated ReceivedEvent")
            if others := handler.required:
                raise TypeError(
                    f"the function for topic {topic!r} asks for {', '.join(others)}: it can have a "
                    "ReceivedEvent and a Mesh"
                )
            self._events[topic, every_instance] = EventFunction(
                topic, handler, every_instance, parsed, concurrency, _start(since)
            )
            return function

        return register

    def health(self, check: Check) -> Check:
        """Have `check` asked whenever the agent's health is: it says no by raising, or by returning False."""
        self._checks.append(check)
        return check

    @cached_property
    def asgi(self) -> AgentApp:
        """The agent as an ASGI application, for any ASGI server."""
        return self.app(Mesh())

    def app(self, mesh: Mesh) -> AgentApp:
        """One more instance of this agent, whose handlers call others through `mesh`."""
        return AgentApp(
            self.settings,
            self._handlers,
            self._checks,
            mesh,
            tasks=tuple(self._tasks.values()),
            events=tuple(self._events.values()),
            default=self._default,
            a2a=self._a2a,
        )

    def drain(self) -> None:
        """Take no new requests; those in flight go on. The agent keeps answering, refusing each."""
        self.asgi.drain()

    def run(self, port: int | None = None, *, host: str = DEFAULT_HOST) -> None:
        """Serve until SIGTERM or SIGINT, then finish what is in flight and return.

        `port` is by default that of WEFT_PORT, else PORT, else 8080. Raises Conflict if it is taken.
        """
        instance = os.environ.get("WEFT_INSTANCE", "")
        start_logging(
            "%(asctime)s %(levelname)s %(name)s: %(message)s",
            os.environ,
            agent=f"{self.settings.type}.{instance}".rstrip("."),
            fields=call_fields,
        )
        permit()
        if port is None:
            port = port_from(os.environ)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run(host, port))

    @asynccontextmanager
    async def serving(self, *, host: str = DEFAULT_HOST, port: int = 0) -> AsyncIterator[str]:
        """Serve for the block, whose value is the agent's address (`http://127.0.0.1:49152`).

        At its end, requests in flight are finished and the agent stops for good. Raises Conflict if `port`
        is taken; 0 lets the system choose.
        """
        listener = bind(host, port)
        address = _address(*listener.getsockname()[:2])
        async with serving(self.asgi, listener):
            yield address

    async def _run(self, host: str, port: int) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, stop)
        async with self.serving(host=host, port=port) as address:
            logger.info("agent %r listens at %s", self.settings.type, address)
            await stop.wait()
            logger.info("agent %r stops once its requests in flight are done", self.settings.type)

    def _stop(self, stop: asyncio.Event) -> None:
        if stop.is_set():  # told twice: in a hurry
            self.asgi.break_off()
        stop.set()

    def _register(self, kind: str, *, streams: bool, default: bool) -> Callable[[Function], Function]:
        def register(function: Function) -> Function:
            if kind in self._handlers:
                raise ValueError(f"agent {self.settings.type!r} has a handler of {kind!r} already")
            if default and self._default is not None:
                raise ValueError(f"agent {self.settings.type!r} has a default already: {self._default!r}")
            self._handlers[kind] = handler_of(kind, function, streams=streams, at_hand=(Mesh, Conversation))
            self._default = kind if default else self._default
            return function

        return register


def _check_concurrency(of: str, concurrency: int | None) -> None:
    if concurrency is not None and concurrency < 1:
        raise InvalidRequest(f"{of}: {concurrency} at once get nothing done: 1 or more")


def _start(since: datetime | int | None) -> dict[str, float] | None:
    if since is None:
        return None
    return {"time": since.timestamp()} if isinstance(since, datetime) else {"sequence": since}


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
