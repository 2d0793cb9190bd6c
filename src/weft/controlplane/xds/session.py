"""One connected sidecar: its stream's protocol state, what it is served, and what is told of it. No I/O."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from weft.controlplane.xds.aggregated import AggregatedStream
from weft.controlplane.xds.delta import Acknowledged, Rejected, Request, Response, Subscription
from weft.controlplane.xds.metrics import XdsMetrics
from weft.controlplane.xds.snapshot import Snapshot
from weft.controlplane.xds.status import Observer, Rejection, SyncStatus, TypeStatus
from weft.controlplane.xds.wire import serialise
from weft.model.node import Node

logger = logging.getLogger(__name__)


class Session:
    """What the server knows of one stream."""

    def __init__(
        self, node: Node, snapshot: Snapshot, generation: int, *, observer: Observer, metrics: XdsMetrics
    ) -> None:
        """`snapshot` is what `node` is to know at first, as of the source's `generation`."""
        self.node = node
        self._snapshot = snapshot
        self._generation = generation
        self._observer = observer
        self._metrics = metrics
        self._connected_since = time.time()
        self._stream = AggregatedStream()
        self._sent: dict[str, int] = {}
        self._accepted: dict[str, tuple[int, str]] = {}
        self._rejections: dict[str, Rejection] = {}
        self._synced_generation: int | None = None
        self._changed_at: float | None = None
        self._unanswered = False

    def change(self, snapshot: Snapshot, generation: int, changed_at: float) -> None:
        """Serve `snapshot` from now on, of which the first word came at `changed_at` (monotonic seconds)."""
        self._snapshot = snapshot
        self._generation = generation
        # What the sidecar has not caught up with counts from the first change, but for what it refuses.
        if self._changed_at is None or self._rejecting:
            self._changed_at = changed_at

    def receive(self, request: Request) -> None:
        """Take in a request. Raises InvalidRequest if the sidecar asks for what cannot be had."""
        match self._stream.receive(request):
            case Acknowledged(response):
                self._accepted[response.type_url] = self._sent[response.type_url], response.nonce
            case Rejected() as rejected:
                self._note_rejection(rejected)

    def responses(self) -> list[bytes]:
        """What is to be sent now, serialised, in this order."""
        due = [self._serialised(response) for response in self._stream.responses(self._snapshot)]
        if self._stream.in_sync(self._snapshot):
            self._note_sync()
        return due

    def has(self, generation: int) -> bool:
        """Whether the sidecar has taken over that generation, or refuses some of what it was sent."""
        return self._synced_generation == generation or self._rejecting

    def status(self) -> SyncStatus:
        """Where the sidecar stands."""
        types = {each.type_url: self._type_status(each) for each in self._stream.subscriptions()}
        return SyncStatus(self.node, self._connected_since, types)

    @property
    def _rejecting(self) -> bool:
        return any(each.rejected for each in self._stream.subscriptions())

    def _serialised(self, response: Response) -> bytes:
        self._sent[response.type_url] = self._generation
        self._unanswered = True
        self._metrics.pushes[response.type_url].inc()
        return serialise(response, self._generation)

    def _type_status(self, subscription: Subscription) -> TypeStatus:
        in_sync = subscription.in_sync(self._snapshot.of_type(subscription.type_url))
        generation, nonce = self._accepted.get(subscription.type_url, (0, ""))
        rejection = None
        if subscription.rejected:
            rejection = replace(self._rejections[subscription.type_url], names=subscription.rejected)
        return TypeStatus(in_sync, self._generation if in_sync else generation, nonce, rejection)

    def _note_rejection(self, rejected: Rejected) -> None:
        response = rejected.response
        self._metrics.nacks[response.type_url].inc()
        if not rejected.isolated:
            return
        names = tuple(resource.name for resource in response.resources)
        # The reason quotes configuration and comes from outside: quoted, so that it stays on one line.
        logger.warning("%s rejected %s %s: %r", self.node.key, response.type_url, names, rejected.reason)
        self._rejections[response.type_url] = Rejection(names, rejected.reason, time.time())
        self._observer.rejected(self.node, response.type_url, rejected.reason, names)

    def _note_sync(self) -> None:
        if self._unanswered and self._changed_at is not None:
            self._metrics.push_seconds.observe(time.monotonic() - self._changed_at)
        self._unanswered = False
        self._changed_at = None
        if self._synced_generation != self._generation:
            self._synced_generation = self._generation
            self._observer.synced(self.node, self._generation)
