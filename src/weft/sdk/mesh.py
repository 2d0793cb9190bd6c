"""The client: requests and streams to agents by name, and who is there."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Self, TypeVar, overload

from pydantic import BaseModel, TypeAdapter

from weft.contexts.conversation import ConversationStore, Seat
from weft.contexts.limits import DEFAULT_LIMITS, ContextLimits
from weft.errors import Interrupted, InvalidRequest, MeshError
from weft.model.agent import Instance, Status
from weft.model.call_budget import BUDGET_HEADER, parse_budget
from weft.model.context_keys import check_context_id, new_context_id
from weft.model.hops import HOPS_HEADER, parse_hops, with_hop
from weft.model.spiffe import parse_spiffe_id
from weft.sdk.call_budget import TREES_PATH, CallBudget, call_budget
from weft.sdk.calls import events_of, fetch
from weft.sdk.cards import PAGE_SIZE as CARDS_PER_PAGE
from weft.sdk.cards import ListedCard, looking_up, read_card_page, read_listed_card, searching
from weft.sdk.connection import check_proxy, find_proxy
from weft.sdk.destination import CONTROL_HOST
from weft.sdk.directory import Change, query_of
from weft.sdk.discovery import DIRECTORY_TIMEOUT, discovered, watched
from weft.sdk.inheritance import inheritance, inherited_headers, inherited_time
from weft.sdk.membership import join_as_program, own_agent_type
from weft.sdk.problem import read_event_error
from weft.sdk.rpc import Payload, adapter_of, checked, fields_of, result_of, rpc_call
from weft.sdk.span_export import WayOut, way_out
from weft.sdk.spans import told_of_handlers
from weft.sdk.task_handle import TaskHandle
from weft.sdk.tools import ListedTool, ToolResult, call_tool, list_tools
from weft.sdk.trace import always_traced, begun, trace_of
from weft.sdk.transport import Call, HttpTransport, Transport
from weft.sdk.wire import (
    CONTEXT_HEADER,
    DEADLINE_HEADER,
    EVENT_STREAM,
    IDEMPOTENCY_HEADER,
    JSON,
    MAX_KEY_LENGTH,
    TRACE_HEADER,
)
from weft.tasks.client import TaskClient
from weft.tracing.settings import TracingSettings
from weft.tracing.tracer import Tracer
from weft.work.membership import Membership
from weft.work.metrics import WorkMetrics
from weft.work.spans import publishing, submitting

logger = logging.getLogger("weft.mesh")

T = TypeVar("T")

DEFAULT_TIMEOUT = 30.0
"""Seconds a request may take, all its attempts included."""

DEFAULT_IDLE_TIMEOUT = 60.0
"""Seconds a stream may be silent; agents send a heartbeat every 15."""


class Mesh:
    """A client of the mesh, through the sidecar of this program.

    Use it as `async with Mesh() as mesh:`, one for the whole program: it holds a pool of connections. Inside
    an agent, take it as a handler's parameter instead: `async def summarize(text: str, mesh: Mesh)`.
    Calls made inside a handler pass on its conversation, deadline, budget and trace; outside of one each call
    is a call tree of its own.
    """

    def __init__(
        self,
        *,
        proxy: str | None = None,
        transport: Transport | None = None,
        joining: Callable[[], Awaitable[Membership]] | None = None,
    ) -> None:
        """Without arguments the sidecar is found through the environment variable WEFT_PROXY.

        `proxy` is the address of a sidecar's outbound listener (`http://127.0.0.1:15001`); `transport`
        another way into the mesh, and `joining` to its topics and queues, as `weft.testing` has them. Raises
        InvalidRequest if `proxy` is no address.
        """
        self._proxy = check_proxy(proxy, "proxy") if proxy is not None else None
        self._transport = transport
        self._joining = joining
        self._membership: Membership | None = None
        self._one_joins = asyncio.Lock()
        self._tracer: Tracer | None = None
        self._exit: WayOut | None = None

    async def __aenter__(self) -> Self:
        """Find the sidecar. Raises Unavailable, with the ways out, if this program has none."""
        self._way()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Send what there is of spans, and close all connections. Streams that are still open break."""
        if self._tracer is not None:
            await self._tracer.aclose()
        if self._exit is not None:
            await self._exit.aclose()
        membership, self._membership = self._membership, None
        if membership is not None:
            await membership.aclose()
        if self._transport is not None:
            await self._transport.aclose()

    @overload
    async def request(
        self,
        to: str | Instance,
        kind: str,
        payload: Payload | None = None,
        /,
        *,
        result_type: type[T] | TypeAdapter[T],
        timeout: float = DEFAULT_TIMEOUT,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        trace: bool = False,
        **arguments: Any,
    ) -> T: ...

    @overload
    async def request(
        self,
        to: str | Instance,
        kind: str,
        payload: Payload | None = None,
        /,
        *,
        result_type: None = None,
        timeout: float = DEFAULT_TIMEOUT,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        trace: bool = False,
        **arguments: Any,
    ) -> Any: ...

    async def request(
        self,
        to: str | Instance,
        kind: str,
        payload: Payload | None = None,
        /,
        *,
        result_type: Any = None,
        timeout: float = DEFAULT_TIMEOUT,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        trace: bool = False,
        **arguments: Any,
    ) -> Any:
        """Have an agent handle a request of `kind` and return its result.

        `to` is a type (`"summarizer"`), a capability (`"summarize.cap"`), or one instance
        (`"summarizer-1.summarizer"`, or an Instance from `discover`). The payload is given as `payload`, as
        keyword `arguments`, or both. `result_type` (a type, or a TypeAdapter for what is not one, as in
        `TypeAdapter(int | None)`) checks and converts the result; without it, it comes as plain JSON values.
        `timeout` is in seconds and covers all attempts; the deadline of the request being handled, if
        there is one, shortens it. With `trace` this call is traced, whatever share of them else is.

        A request is sent again only if it certainly was not processed; with an `idempotency_key` also if it
        may have been. Raises the MeshError that fits: NoSuchAgent, NoHealthyAgent, Refused, TimedOut,
        Interrupted, NotFound (the agent knows no such kind), InvalidRequest (it does not like the
        arguments), AgentFailed (its own error), Unavailable (no sidecar).
        """
        call = rpc_call(to, kind, {**fields_of(payload), **arguments}, JSON, _sent(headers, trace))
        if idempotency_key is not None:
            call = replace(call, headers={**call.headers, IDEMPOTENCY_HEADER: _check_key(idempotency_key)})
        body = await fetch(self._way(), call, _time_left(timeout), repeatable=idempotency_key is not None)
        return result_of(call.host, body, result_type)

    @overload
    def stream(
        self,
        to: str | Instance,
        kind: str,
        payload: Payload | None = None,
        /,
        *,
        item_type: type[T] | TypeAdapter[T],
        idle_timeout: float = DEFAULT_IDLE_TIMEOUT,
        headers: Mapping[str, str] | None = None,
        trace: bool = False,
        **arguments: Any,
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def stream(
        self,
        to: str | Instance,
        kind: str,
        payload: Payload | None = None,
        /,
        *,
        item_type: None = None,
        idle_timeout: float = DEFAULT_IDLE_TIMEOUT,
        headers: Mapping[str, str] | None = None,
        trace: bool = False,
        **arguments: Any,
    ) -> AsyncGenerator[Any, None]: ...

    async def stream(
        self,
        to: str | Instance,
        kind: str,
        payload: Payload | None = None,
        /,
        *,
        item_type: Any = None,
        idle_timeout: float = DEFAULT_IDLE_TIMEOUT,
        headers: Mapping[str, str] | None = None,
        trace: bool = False,
        **arguments: Any,
    ) -> AsyncGenerator[Any, None]:
        """Have an agent handle a request of `kind` and yield its items as they come.

        `async for item in mesh.stream("writer", "chat", prompt="..."):`; to stop before the end, wrap it in
        `contextlib.aclosing`, so that the agent is told at once. The arguments are those of `request`.
        `idle_timeout` is how many seconds the stream may be silent. Raises what `request` raises, at the
        beginning or midway; a stream that breaks off without saying that it is complete raises Interrupted.
        The deadline of the request being handled, if there is one, ends it with TimedOut.
        """
        call = rpc_call(to, kind, {**fields_of(payload), **arguments}, EVENT_STREAM, _sent(headers, trace))
        adapter = adapter_of(Any if item_type is None else item_type)
        async with aclosing(events_of(self._way(), call, idle_timeout, inherited_time())) as events:
            async for event in events:
                if event.name == "end":
                    return
                if event.name == "error":
                    raise read_event_error(call.host, event.data)
                yield checked(call.host, adapter, event.data)
        raise Interrupted(f"the stream of {call.host} broke off before its end")

    async def submit(
        self,
        queue: str,
        payload: Payload | None = None,
        /,
        *,
        priority: str = "normal",
        delay: float | None = None,
        deadline: float | None = None,
        idempotency_key: str | None = None,
        result_ttl: float | None = None,
        webhook: str = "",
        labels: Mapping[str, str] | None = None,
        trace: bool = False,
        **arguments: Any,
    ) -> TaskHandle:
        """Put a task into a queue; when this returns it is stored, and will be worked on.

        The payload is given as `payload`, as keyword `arguments`, or both. `priority` is `high`, `normal` or
        `low`. `delay` is in seconds; so is `deadline`, after which it is too late for the task; that of the
        call being handled, if there is one, does not shorten it. Submitted again with the same
        `idempotency_key`, it is the same task. `result_ttl` is how many seconds its result is kept, and
        `webhook` a URL to which its end is posted. With `trace` it is traced, whatever share of them else is.

        Raises QueueFull, with the seconds after which to try again; NotFound for a queue that is not
        declared; Denied; InvalidRequest; Conflict for a key that was used with another payload; Unavailable,
        after which it may have been submitted; LoopDetected if the call tree has passed too many agents.
        """
        membership = await self.membership()
        headers = _for_messages(begun(inherited_headers(), self.tracer, always=trace), membership)
        with submitting(self.tracer, queue, headers) as (span, headers):
            submitted = await membership.tasks.submit(
                queue,
                {**fields_of(payload), **arguments},
                priority=priority,
                delay=delay,
                deadline=None if deadline is None else time.time() + deadline,
                idempotency_key=idempotency_key,
                result_ttl=result_ttl,
                webhook=webhook,
                headers=headers,
                labels=labels,
            )
            if span is not None:
                span.set("weft.task", submitted.task.id)
        return self.task(submitted.task.id)

    def task(self, task_id: str) -> TaskHandle:
        """A task that was submitted, here or anywhere."""
        return TaskHandle(task_id, self._tasks)

    async def publish(
        self,
        topic: str,
        data: Any = None,
        /,
        *,
        type: str | None = None,  # noqa: A002 - CloudEvents call it so
        key: str | None = None,
        id: str | None = None,  # noqa: A002
        subject: str | None = None,
        extensions: Mapping[str, str | bool | int] | None = None,
        trace: bool = False,
    ) -> int:
        """Publish an event to a topic, or below it (`orders.created`); return its sequence (0: not told).

        `data` is bytes, or what JSON can say, or a Pydantic model. It becomes a CloudEvent of `type` (by
        default the topic), with `subject` and `extensions` as given. Events with the same `key` stay in
        order, in a topic with partitions. When this returns the event is stored. Raises NotFound for a topic
        that is not declared, Denied, InvalidRequest, Unavailable (publish it again with the same `id`).
        """
        membership = await self.membership()
        headers = _for_messages(begun(inherited_headers(), self.tracer, always=trace), membership)
        with publishing(self.tracer, topic, headers) as (_, headers):
            return await membership.events.publish(
                topic,
                data.model_dump(mode="json", by_alias=True) if isinstance(data, BaseModel) else data,
                type=type,
                key=key,
                id=id,
                subject=subject,
                extensions=extensions or {},
                headers=headers,
            )
        raise AssertionError("a span swallows nothing")

    def context(
        self,
        id: str | None = None,  # noqa: A002 - what it is called everywhere
        *,
        create: bool = False,
        limits: ContextLimits = DEFAULT_LIMITS,
    ) -> ConversationStore:
        """What is kept of a conversation: its messages, its state, its artifacts. Nothing is asked here yet.

        Without `id` it is the conversation of the call being handled (`x-weft-context`), else a new one, and
        it begins with what is first written. The context of an `id` must be there, unless `create` is set;
        that of another tenant never is. An `id` of one's own may be any text: choose one that others do not
        guess. `limits` are those of a context that begins. Raises InvalidRequest for an `id` without end.
        """
        if id is not None:
            return ConversationStore(check_context_id(id), self._seat, may_begin=create, limits=limits)
        known = inherited_headers().get(CONTEXT_HEADER) or new_context_id()
        return ConversationStore(check_context_id(known), self._seat, may_begin=True, limits=limits)

    def own_type(self, declared: str) -> str | None:
        """The agent type as which this program is in the mesh: what its sidecar was told, not what it says.

        `declared` is what it says, and what counts in a mesh in memory. None if it has no sidecar.
        """
        return declared if self._joining is not None else own_agent_type(os.environ)

    async def budget(self) -> CallBudget:
        """What calls made now may yet spend on models: what is left of `x-weft-budget`, of tree and branches.

        What calls under way may use counts as spent. Raises Unavailable if the control plane cannot be asked.
        """
        here = inheritance()
        trace = trace_of(here.headers[TRACE_HEADER]) if here is not None else None
        if here is None or trace is None:
            return CallBudget()
        said = here.headers.get(BUDGET_HEADER)
        call = Call("GET", CONTROL_HOST, f"{TREES_PATH}/{trace}", {"accept": JSON})
        answer = await fetch(self._way(), call, DIRECTORY_TIMEOUT)
        return call_budget(parse_budget(said) if said else (), answer)

    async def membership(self) -> Membership:
        """What this program uses topics, queues and contexts by; joined when it is first needed.

        Raises Unavailable if it cannot be, with the way out.
        """
        if self._membership is None:
            async with self._one_joins:
                if self._membership is None:
                    join = self._joining or partial(join_as_program, self._way(), os.environ)
                    self._membership = await join()
        return self._membership

    @property
    def metrics(self) -> WorkMetrics | None:
        """Figures of the tasks and events of this program; None before it uses any."""
        return None if self._membership is None else self._membership.metrics

    async def _seat(self) -> Seat:
        return await (await self.membership()).contexts.seat()

    async def _tasks(self) -> TaskClient:
        return (await self.membership()).tasks

    async def discover(
        self,
        type: str | None = None,  # noqa: A002 - what it is called everywhere
        *,
        capability: str | Iterable[str] = (),
        version: str | None = None,
        labels: Mapping[str, str] | None = None,
        status: Status | Iterable[Status] | None = Status.HEALTHY,
        limit: int | None = None,
    ) -> list[Instance]:
        """Return the instances for which all that is given holds, sorted by type and id.

        `capability` may be several: an instance must have all of them. `status` None means any, `limit`
        None all. Raises Unavailable if the control plane cannot be asked.
        """
        query = query_of(type, capability, version, labels, status)
        return await discovered(self._way(), query, limit)

    async def cards(
        self, text: str = "", *, skill: str | Iterable[str] = (), tag: str | Iterable[str] = ()
    ) -> list[ListedCard]:
        """The agents with an A2A card for which all that is given holds, by type; those it may speak to.

        All words of `text` must be somewhere in a card's names, descriptions, tags or examples; `skill` (ids
        or names) and `tag` may be several: it must have all of them. Raises Unavailable if the control plane
        cannot be asked.
        """
        way = self._way()
        found: list[ListedCard] = []
        after: str | None = ""
        while after is not None:
            call = searching(text, skill, tag, CARDS_PER_PAGE, after)
            page = read_card_page(await fetch(way, call, DIRECTORY_TIMEOUT))
            found += page.items
            after = page.next
        return found

    async def card(self, type: str) -> ListedCard:  # noqa: A002 - what it is called everywhere
        """The A2A card of an agent type. Raises NotFound if it has none, or none that this agent may see."""
        return read_listed_card(await fetch(self._way(), looking_up(type), DIRECTORY_TIMEOUT))

    async def tools(self) -> list[ListedTool]:
        """The tools of the mesh that this program may call, in the mesh's order.

        Raises Unavailable if the control plane cannot be asked.
        """
        return await list_tools(self._way(), inherited_headers(), _time_left(DIRECTORY_TIMEOUT))

    async def call_tool(
        self,
        name: str,
        payload: Payload | None = None,
        /,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        idempotency_key: str | None = None,
        trace: bool = False,
        **arguments: Any,
    ) -> ToolResult:
        """Call a tool of the mesh by its name in `tools`, and return what it came to.

        Its arguments are given as `payload`, as keyword `arguments`, or both. `timeout`, `idempotency_key`
        and `trace` are as with `request`. Raises AgentFailed where the tool says that it failed, in its
        words; NotFound for a tool that is not there, or not for this program; and what `request` raises.
        """
        headers = {**inherited_headers(), **(_sent(None, trace) or {})}
        if idempotency_key is not None:
            headers = {**headers, IDEMPOTENCY_HEADER: _check_key(idempotency_key)}
        return await call_tool(
            self._way(),
            name,
            {**fields_of(payload), **arguments},
            headers,
            _time_left(timeout),
            repeatable=idempotency_key is not None,
        )

    async def watch(
        self,
        type: str | None = None,  # noqa: A002 - what it is called everywhere
        *,
        capability: str | Iterable[str] = (),
        version: str | None = None,
        labels: Mapping[str, str] | None = None,
        status: Status | Iterable[Status] | None = Status.HEALTHY,
    ) -> AsyncGenerator[Change, None]:
        """Yield each instance that `discover` would return, as added, and then every change, without end.

        An instance that no longer matches is removed. Goes on by itself after a lost connection, repeating
        nothing. Raises InvalidRequest if the query makes no sense.
        """
        query = query_of(type, capability, version, labels, status)
        async with aclosing(watched(self._way, query)) as changes:
            async for change in changes:
                yield change

    @property
    def transport(self) -> Transport:
        """The way into the mesh, for calls that have no method here. Raises Unavailable if there is none."""
        return self._way()

    @property
    def tracer(self) -> Tracer:
        """What records the spans of this program, by its environment: see weft.tracing.settings."""
        if self._tracer is None:
            settings = TracingSettings.of(os.environ)
            self._exit = way_out(settings, self._way_if_any())
            self._tracer = Tracer(settings, self._exit.send if self._exit else None, told_of_handlers)
        return self._tracer

    def _way_if_any(self) -> Transport | None:
        try:
            return self._way()
        except MeshError:
            return None

    def _way(self) -> Transport:
        if self._transport is None:
            self._transport = HttpTransport(self._proxy or find_proxy(os.environ))
        return self._transport


def _for_messages(headers: Mapping[str, str], sender: Membership) -> dict[str, str]:
    """What messages take along of a call's headers: a deadline of the call is none of theirs.

    No sidecar sees them, so that the sender says itself that they have passed it. Raises LoopDetected.
    """
    kept = {name: value for name, value in headers.items() if name != DEADLINE_HEADER}
    own = parse_spiffe_id(sender.identity).agent_type
    if own is not None:
        kept[HOPS_HEADER] = with_hop(parse_hops(kept.get(HOPS_HEADER, "")), own)
    return kept


def _sent(headers: Mapping[str, str] | None, trace: bool) -> Mapping[str, str] | None:
    """What a call says of its own accord; with `trace` also that it is to be traced."""
    if not trace:
        return headers
    given = {name.lower(): value for name, value in (headers or {}).items()}
    return always_traced({**inherited_headers(), **given})


def _check_key(key: str) -> str:
    if 0 < len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable():
        return key
    raise InvalidRequest(f"an idempotency key is 1 to {MAX_KEY_LENGTH} printable ASCII characters")


def _time_left(timeout: float) -> float:
    inherited = inherited_time()
    return timeout if inherited is None else max(0.0, min(timeout, inherited))
