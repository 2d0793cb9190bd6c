"""Envoy's questions about calls (ext_proc over gRPC): each is answered when it is decided."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final, Protocol

import grpc
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from google.protobuf.message import DecodeError

from weft.controlplane.llm import replies
from weft.controlplane.llm.asks import Asked, asked, call_of
from weft.controlplane.llm.call import Admission, Call, Decision, Reason, Refusal
from weft.controlplane.llm.peers import Peer, Peers
from weft.controlplane.xds.connection import Context
from weft.errors import Denied, InvalidRequest, Unauthenticated
from weft.model.model_pool import ModelPool

logger = logging.getLogger(__name__)

SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"
METHOD: Final = "Process"

FIRST_MESSAGE: Final = 10.0
"""Seconds that a sidecar has for its question."""

MAX_OPEN: Final = 20_000
"""Questions that wait at one replica at once; a further call is refused, since others need streams, too."""

LOOK: Final = 0.02
"""Seconds, or twice as many, after which the stream of a call that still waits is watched for its end."""


class Schedules(Protocol):
    """Who decides."""

    def pool(self, name: str) -> ModelPool | None:
        """The pool of that name, if it is declared."""
        ...

    def denial(self, sidecar: str, pool: str) -> str | None:
        """Why a sidecar, by its SPIFFE ID, may not use `pool`; None: it may."""
        ...

    async def start(self, call: Call, holder: str) -> Decision:
        """Whether and where `call` starts; returns when it is time. When cancelled, the call is given up."""
        ...

    async def attempt(self, call: Call, provider: str) -> Decision:
        """Whether `call`, which failed elsewhere, may go to `provider`; likewise."""
        ...


class Asking:
    """The service."""

    def __init__(self, schedules: Schedules, peers: Peers) -> None:
        self._schedules = schedules
        self._peers = peers
        self._open = 0
        self._lookout = _Lookout()

    def handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """What a gRPC server needs to serve it."""
        # To Envoy it is a stream either way; an answer that is the last one takes gRPC a step less to send.
        method = grpc.stream_unary_rpc_method_handler(self._process)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})

    async def _process(self, requests: AsyncIterator[bytes], context: Context) -> bytes:  # noqa: ARG002
        self._open += 1
        try:
            peer = self._peers.peer(context)
            async with asyncio.timeout(FIRST_MESSAGE):
                data = await context.read()
            if isinstance(data, bytes):
                return await self._answer(_parsed(data), peer, context)
            await context.abort(grpc.StatusCode.CANCELLED, "nothing was asked")
        except InvalidRequest as error:
            return replies.invalid(error.detail)
        except _Left:
            await context.abort(grpc.StatusCode.CANCELLED, "who asked has left")
        except Unauthenticated as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, error.detail)
        except Denied as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.detail)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the question did not come")
        finally:
            self._open -= 1

    async def _answer(self, request: ProcessingRequest, peer: Peer, context: Context) -> bytes:
        if not request.HasField("request_headers"):
            raise InvalidRequest("only the headers of requests are asked about")
        question = asked(request, context.invocation_metadata() or ())
        pool = self._schedules.pool(question.pool)
        if pool is None:
            return replies.refused(_unknown(question))
        denial = self._schedules.denial(peer.sidecar, pool.name)
        if denial is not None:
            return replies.refused(_denied(pool.name, denial))
        if self._open > MAX_OPEN:
            return replies.refused(_too_many())
        call = call_of(question, peer, pool, time.time())
        if question.provider:
            if pool.provider(question.provider) is None:
                raise InvalidRequest(f"pool {pool.name!r} has no provider {question.provider!r}")
            deciding = self._schedules.attempt(call, question.provider)
        else:
            deciding = self._schedules.start(call, peer.holder)
        decision = await self._while_there(deciding, context)
        # Envoy hangs up as soon as it has its answer, so it cannot be known here whether it has come to it. A
        # call that it has not come to is told of by nobody, and counts as over after a while.
        return _reply(decision, call, again=bool(question.provider))

    async def _while_there(self, deciding: Awaitable[Decision], context: Context) -> Decision:
        """The decision; _Left if the sidecar hangs up before. A call whose client left is given up at once.

        Envoy may say so by the end of its half of the stream alone.
        """
        watch = _Watch(context)
        self._lookout.add(watch)
        try:
            return await deciding
        except asyncio.CancelledError:
            if not watch.left:
                raise
            raise _Left from None
        finally:
            watch.end()


class _Left(Exception):
    """The other side wants no answer any more."""


class _Lookout:
    """Begins to watch the streams of calls that wait for longer: one timer for all of them."""

    def __init__(self) -> None:
        self._next: deque[tuple[float, _Watch]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watch: _Watch) -> None:
        """A call waits from now on."""
        loop = asyncio.get_running_loop()
        self._next.append((loop.time() + LOOK, watch))
        if self._timer is None:
            self._timer = loop.call_later(LOOK, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._next and self._next[0][0] <= now:
            self._next.popleft()[1].begin()
        self._timer = loop.call_later(LOOK, self._look) if self._next else None


class _Watch:
    """Whether the other side still wants the answer that the current task waits for."""

    __slots__ = ("_context", "_ended", "_reading", "_waiting", "left")

    def __init__(self, context: Context) -> None:
        waiting = asyncio.current_task()
        assert waiting is not None  # noqa: S101
        self.left = False
        self._waiting = waiting
        self._context = context
        self._ended = False
        self._reading: asyncio.Task[Any] | None = None

    def begin(self) -> None:
        """From now on cancel who waits when the other side leaves; not if the wait has ended."""
        if not self._ended:
            loop = asyncio.get_running_loop()
            self._reading = loop.create_task(self._context.read(), name="asking: watch")
            self._reading.add_done_callback(self._note)

    def end(self) -> None:
        """Watch no more."""
        self._ended = True
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _note(self, ended: asyncio.Task[Any]) -> None:
        if ended.cancelled() or self._ended:
            return
        ended.exception()
        self.left = True
        self._waiting.cancel()


def _parsed(data: bytes) -> ProcessingRequest:
    try:
        return ProcessingRequest.FromString(data)
    except DecodeError as error:
        raise InvalidRequest("not a question of Envoy's") from error


def _reply(decision: Decision, call: Call, *, again: bool) -> bytes:
    match decision:
        case Refusal():
            return replies.refused(decision)
        case Admission() if again:
            return replies.attempt_admitted(call.id)
    return replies.admitted(call.id, call.pool, decision.provider)


def _too_many() -> Refusal:
    detail = f"{MAX_OPEN} calls wait at this replica of the control plane already: try again later"
    return Refusal("", Reason.QUEUE_FULL, detail, retry_after=1.0)


def _denied(pool: str, reason: str) -> Refusal:
    detail = f"this agent may not use pool {pool!r}: {reason}; see why with 'weft can'"
    return Refusal("", Reason.DENIED, detail)


def _unknown(question: Asked) -> Refusal:
    detail = f"there is no pool {question.pool[:100]!r} of models: was it deleted a moment ago?"
    return Refusal("", Reason.UNKNOWN_MODEL, detail)
