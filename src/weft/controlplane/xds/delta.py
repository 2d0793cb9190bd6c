"""The incremental xDS protocol for one type of resource on one stream: a state machine without I/O.

`receive` takes what the client says, `take` gives what it is to be sent next. At most one response is
outstanding (sent, not yet answered); what changes meanwhile is coalesced into the next one.

What the client is known to hold moves on with its ACKs only. A NACK says nothing about which resource of
the response was wrong, so they are sent again in halves until the culprits are alone: those are not sent
again before their version changes, and the others are not held back by them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from weft.controlplane.xds.snapshot import CLUSTER, LISTENER, EncodedResource
from weft.errors import InvalidRequest

WILDCARD = "*"
"""Subscribing to this name means all resources of the type."""

FULL_STATE_TYPES = frozenset({CLUSTER, LISTENER})
"""Types of which a client that names nothing in its first request wants everything."""

MAX_NAMES = 20_000
"""How many names a client may subscribe to, for each type."""

MAX_NAME_LENGTH = 512
"""How many characters a subscribed name may have."""

Resources = Mapping[str, EncodedResource]


@dataclass(frozen=True, slots=True)
class Request:
    """What a client says about one type: a subscription, an ACK or NACK, or both at once."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    """Name and version of all it holds already; in the first request of a type only."""
    nonce: str = ""
    """Which response this answers; empty if it answers none."""
    error: str | None = None
    """Why the client rejected that response: makes the answer a NACK."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a client is sent about one type."""

    type_url: str
    nonce: str
    resources: tuple[EncodedResource, ...] = ()
    removed: tuple[str, ...] = ()
    """Names that don't exist, or no longer."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The client took over the outstanding response."""

    response: Response


@dataclass(frozen=True, slots=True)
class Rejected:
    """The client refused the outstanding response and goes on with what it had."""

    response: Response
    reason: str

    @property
    def isolated(self) -> bool:
        """Whether it is known what was refused: false while it can be any of several resources."""
        return len(self.response.resources) <= 1


Verdict = Acknowledged | Rejected


class Subscription:
    """One client's subscription to one type of resource."""

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.resumed = False
        """Whether the client came with resources it got on an earlier stream."""
        self.started = False
        """Whether the client has asked for this type at all."""
        self._wildcard = False
        self._names: set[str] = set()
        self._known: dict[str, str] = {}
        self._owed: set[str] = set()
        """To be answered for even if nothing changed."""
        self._answer_owed = False
        self._renewed: set[str] = set()
        self._rejected: dict[str, str] = {}
        self._suspects: deque[tuple[str, ...]] = deque()
        self._outstanding: Response | None = None
        self._compared: Resources | None = None
        """What was last found to leave nothing to send."""

    @property
    def outstanding(self) -> bool:
        """Whether a response was sent that the client has not answered yet."""
        return self._outstanding is not None

    @property
    def rejected(self) -> tuple[str, ...]:
        """Names of the resources whose present version the client has refused, sorted."""
        return tuple(sorted(self._rejected))

    def in_sync(self, resources: Resources) -> bool:
        """Whether the client holds what it wants exactly as in `resources`, as far as `take` knows."""
        return self._compared is resources and self._outstanding is None and not self._rejected

    def receive(self, request: Request) -> Verdict | None:
        """Take in what the client says; return its verdict on the outstanding response, if it gives one.

        An answer with any other nonce is stale: its subscriptions count, its verdict does not.
        Raises InvalidRequest if the client wants too much.
        """
        _check_names(request.subscribe)
        verdict = self._settle(request)
        if request.unsubscribe:
            self._unsubscribe(request.unsubscribe)
        if request.subscribe:
            self._subscribe(request.subscribe)
        if not self.started:
            self._start(request)
        return verdict

    def renew(self, names: Iterable[str]) -> None:
        """Send those of `names` that are subscribed to, even if they have not changed."""
        self._renewed.update(names)
        self._compared = None

    def take(self, resources: Resources, nonce: str, *, removals: bool) -> Response | None:
        """The response that is due now, which thereby is outstanding; None if none is.

        `resources` is all there is of the type now. `removals` says whether the client may be told now that
        something it holds is gone; if not, that is left for later.
        """
        if not self.started or self._outstanding is not None or self._compared is resources:
            return None
        self._forget_replaced_rejections(resources)
        suspects = self._next_suspects(resources)
        if suspects:
            return self._send(Response(self.type_url, nonce, suspects))
        self._owed |= self._renewed & self._names
        self._renewed.clear()
        changed = tuple(self._changed(resources))
        gone = self._known.keys() - resources.keys()
        missing = self._owed - resources.keys()
        if removals:
            missing |= gone
        self._compared = resources if removals or not gone else None
        if not (changed or missing or self._answer_owed):
            return None
        return self._send(Response(self.type_url, nonce, changed, tuple(sorted(missing))))

    def _start(self, request: Request) -> None:
        self.started = True
        if not request.subscribe and self.type_url in FULL_STATE_TYPES:
            self._wildcard = True
        self._known = {
            name: version for name, version in request.initial_versions.items() if self._covers(name)
        }
        self.resumed = bool(self._known)
        self._owed -= self._known.keys()
        # A client that holds nothing waits for an answer, be it empty.
        self._answer_owed = self._wildcard and not self._known

    def _subscribe(self, names: Iterable[str]) -> None:
        self._compared = None
        for name in names:
            if name == WILDCARD:
                self._wildcard = True
                self._answer_owed = True
            else:
                self._names.add(name)
                # Even if it is subscribed to: the client may have dropped it and want it again.
                self._owed.add(name)
        if max(len(self._names), len(self._owed)) > MAX_NAMES:
            raise InvalidRequest(f"more than {MAX_NAMES} names of {self.type_url} subscribed to")

    def _unsubscribe(self, names: Iterable[str]) -> None:
        self._compared = None
        for name in names:
            if name == WILDCARD:
                self._unsubscribe_wildcard()
            elif name in self._names:
                self._names.discard(name)
                self._drop(name)
                if self._wildcard:
                    # The client cannot tell whether the wildcard covers what it had by name.
                    self._owed.add(name)

    def _unsubscribe_wildcard(self) -> None:
        self._wildcard = False
        self._answer_owed = False
        for name in (self._known.keys() | self._rejected.keys() | self._owed) - self._names:
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._known.pop(name, None)
        self._rejected.pop(name, None)
        self._owed.discard(name)

    def _covers(self, name: str) -> bool:
        return self._wildcard or name in self._names

    def _settle(self, request: Request) -> Verdict | None:
        response = self._outstanding
        if response is None or not request.nonce or request.nonce != response.nonce:
            return None
        self._outstanding = None
        if request.error is None:
            self._accept(response)
            return Acknowledged(response)
        return self._reject(response, request.error)

    def _accept(self, response: Response) -> None:
        self._forget(response.removed)
        for resource in response.resources:
            if self._covers(resource.name):
                self._known[resource.name] = resource.version
                self._rejected.pop(resource.name, None)

    def _reject(self, response: Response, reason: str) -> Rejected:
        self._compared = None
        names = tuple(resource.name for resource in response.resources)
        rejected = Rejected(response, reason)
        if not rejected.isolated:
            middle = len(names) // 2
            self._suspects.extendleft((names[middle:], names[:middle]))
        elif names:
            self._mark_rejected(response.resources[0])
        if names:
            # Removals were not to blame, but may have been ignored with the rest: they come again, alone.
            self._owed.update(filter(self._covers, response.removed))
        else:
            self._forget(response.removed)
        return rejected

    def _mark_rejected(self, resource: EncodedResource) -> None:
        if self._covers(resource.name):
            self._rejected[resource.name] = resource.version

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._known.pop(name, None)

    def _forget_replaced_rejections(self, resources: Resources) -> None:
        self._rejected = {
            name: version
            for name, version in self._rejected.items()
            if name in resources and resources[name].version == version
        }

    def _next_suspects(self, resources: Resources) -> tuple[EncodedResource, ...]:
        while self._suspects:
            names = self._suspects.popleft()
            found = tuple(resources[name] for name in names if name in resources and self._covers(name))
            if found:
                return found
        return ()

    def _changed(self, resources: Resources) -> Iterator[EncodedResource]:
        names: Iterable[str] = resources if self._wildcard else self._names & resources.keys()
        for name in names:
            resource = resources[name]
            if name in self._owed or (
                resource.version != self._known.get(name) and resource.version != self._rejected.get(name)
            ):
                yield resource

    def _send(self, response: Response) -> Response:
        self._outstanding = response
        self._owed.difference_update(resource.name for resource in response.resources)
        self._owed.difference_update(response.removed)
        self._answer_owed = False
        return response


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if len(name) > MAX_NAME_LENGTH:
            raise InvalidRequest(f"a subscribed name is longer than {MAX_NAME_LENGTH} characters")
