"""Whatever the order in which things happen, a client ends up with what it is to know."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping

import pytest
from tests.xds import Resources

from weft.controlplane.xds.aggregated import AggregatedStream
from weft.controlplane.xds.delta import Request, Response
from weft.controlplane.xds.snapshot import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    EncodedResource,
    Snapshot,
)

NAMES = "abcdef"
BAD = "!"
"""What the version of a resource ends with that the client rejects."""


class ModelEnvoy:
    """What an Envoy does with what it is sent, as far as the protocol can tell.

    The version of a route configuration lists the clusters it refers to.
    """

    def __init__(self) -> None:
        self.held: dict[str, dict[str, str]] = {CLUSTER: {}, ENDPOINTS: {}, LISTENER: {}, ROUTES: {}}
        self.warming: set[str] = set()
        self.inbox: deque[Response] = deque()
        self.outbox: deque[Request] = deque()
        self._unacked_clusters: Request | None = None
        self._asked: set[str] = set()

    def connect(self) -> None:
        """Open a new stream; what was on its way on the old one is lost."""
        self.inbox.clear()
        self.outbox.clear()
        self._unacked_clusters = None
        # Envoy gives up waiting for endpoints after a while.
        self.warming.clear()
        self._asked = set()
        self._ask(CLUSTER)
        self._ask(ENDPOINTS, *self.held[CLUSTER])
        self._ask(LISTENER)
        self._ask(ROUTES, *self._route_names())

    def read(self) -> None:
        """Take the next response in, and answer it."""
        response = self.inbox.popleft()
        good = not any(each.version.endswith(BAD) for each in response.resources)
        answer = Request(response.type_url, nonce=response.nonce, error=None if good else "bad")
        if good:
            self._apply(response)
        elif response.type_url == ENDPOINTS:
            # Envoy does not let clusters wait for endpoints that are wrong.
            self.warming.clear()
        if good and response.type_url == CLUSTER:
            self._unacked_clusters = answer
        else:
            self.outbox.append(answer)
        self._ack_clusters_when_warm()

    def drop_and_want_again(self, name: str) -> None:
        """Lose interest in a cluster's endpoints, and regain it."""
        if name in self.held[CLUSTER]:
            self.held[ENDPOINTS].pop(name, None)
            self.outbox.append(Request(ENDPOINTS, (), (name,)))
            self.outbox.append(Request(ENDPOINTS, (name,)))

    def _route_names(self) -> list[str]:
        return list(self.held[LISTENER])

    def _ask(self, type_url: str, *names: str) -> None:
        if type_url in {ENDPOINTS, ROUTES} and not names:
            return
        initial = {} if type_url in self._asked else dict(self.held[type_url])
        self._asked.add(type_url)
        self.outbox.append(Request(type_url, names, initial_versions=initial))

    def _apply(self, response: Response) -> None:
        held = self.held[response.type_url]
        fresh = [each.name for each in response.resources if each.name not in held]
        gone = [name for name in response.removed if name in held]
        held.update(
            {
                each.name: each.version
                for each in response.resources
                if self._wants(response.type_url, each.name)
            }
        )
        for name in gone:
            del held[name]
        match response.type_url:
            case str() as type_url if type_url == CLUSTER:
                self._apply_clusters(response, fresh, gone)
            case str() as type_url if type_url == ENDPOINTS:
                self.warming -= {each.name for each in response.resources} | set(response.removed)
            case str() as type_url if type_url == LISTENER:
                self._ask(ROUTES, *fresh)
                self._drop(ROUTES, gone)

    def _wants(self, type_url: str, name: str) -> bool:
        """What it has unsubscribed from may still be on its way."""
        referrer = {ENDPOINTS: CLUSTER, ROUTES: LISTENER}.get(type_url)
        return referrer is None or name in self.held[referrer]

    def _apply_clusters(self, response: Response, fresh: list[str], gone: list[str]) -> None:
        self.warming |= {each.name for each in response.resources}
        self.warming -= set(gone)
        self._ask(ENDPOINTS, *fresh)
        self._drop(ENDPOINTS, gone)

    def _drop(self, type_url: str, names: list[str]) -> None:
        for name in names:
            self.held[type_url].pop(name, None)
        if names:
            self.outbox.append(Request(type_url, unsubscribe=tuple(names)))

    def _ack_clusters_when_warm(self) -> None:
        if self._unacked_clusters is not None and not self.warming:
            self.outbox.append(self._unacked_clusters)
            self._unacked_clusters = None


class World:
    """A server and a model client, connected by two pipes, and everything that may happen to them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.stream = AggregatedStream()
        self.client = ModelEnvoy()
        self.snapshot = Snapshot({}, {}, {}, {})
        self.ever_bad: set[str] = set()
        self.reconnect()

    def reconnect(self) -> None:
        self.stream = AggregatedStream()
        self.client.connect()

    def flush(self) -> None:
        self.client.inbox.extend(self.stream.responses(self.snapshot))
        waiting = [response.type_url for response in self.client.inbox]
        assert len(set(waiting)) == len(waiting), "two responses of one type outstanding"

    def deliver_to_server(self) -> None:
        if self.client.outbox:
            self.stream.receive(self.client.outbox.popleft())
            self.flush()

    def deliver_to_client(self) -> None:
        if self.client.inbox:
            self.client.read()
            self.check_routes()

    def change(self) -> None:
        """Change anything; routes refer to existing clusters only."""
        clusters = self.some(self.snapshot.clusters, bad=0.1)
        self.ever_bad |= {name for name, each in clusters.items() if each.version.endswith(BAD)}
        routed = "".join(sorted(name for name in clusters if self.random.random() < 0.7))
        suffix = BAD if self.random.random() < 0.1 else ""
        listeners = self.some(self.snapshot.listeners, bad=0.1, names="lm")
        self.snapshot = Snapshot(
            clusters,
            self.some(self.snapshot.endpoints, bad=0.1),
            listeners,
            {name: EncodedResource(name, routed + suffix, b"") for name in "lm"},
        )
        self.flush()

    def some(self, now: Mapping[str, EncodedResource], *, bad: float, names: str = NAMES) -> Resources:
        result = dict(now)
        for name in self.random.sample(names, k=2):
            version = str(self.random.randrange(3)) + (BAD if self.random.random() < bad else "")
            result[name] = EncodedResource(name, version, b"")
            if self.random.random() < 0.4:
                del result[name]
        return result

    def check_routes(self) -> None:
        """No route leads to a cluster that the client has not, unless it was one it rejected."""
        for version in self.client.held[ROUTES].values():
            assert set(version) <= self.client.held[CLUSTER].keys() | self.ever_bad

    def settle(self) -> None:
        for _ in range(10_000):
            if not self.client.inbox and not self.client.outbox:
                return
            self.deliver_to_client()
            self.deliver_to_server()
        pytest.fail("the conversation does not end")

    def wander(self, steps: int) -> None:
        happenings = [
            self.change,
            self.reconnect,
            lambda: self.client.drop_and_want_again(self.random.choice(NAMES)),
            self.deliver_to_client,
            self.deliver_to_server,
        ]
        for happening in self.random.choices(happenings, weights=[10, 1, 3, 40, 40], k=steps):
            happening()

    def repair(self) -> None:
        """Replace everything bad with something good."""
        self.snapshot = Snapshot(
            *(
                {
                    name: EncodedResource(name, each.version.removesuffix(BAD), b"")
                    for name, each in mapping.items()
                }
                for mapping in (
                    self.snapshot.clusters,
                    self.snapshot.endpoints,
                    self.snapshot.listeners,
                    self.snapshot.routes,
                )
            )
        )
        self.flush()


def expected(world: World) -> dict[str, dict[str, str]]:
    """What the client is to hold in the end."""
    now = world.snapshot
    clusters = {name: each.version for name, each in now.clusters.items()}
    listeners = {name: each.version for name, each in now.listeners.items()}
    return {
        CLUSTER: clusters,
        ENDPOINTS: {name: each.version for name, each in now.endpoints.items() if name in clusters},
        LISTENER: listeners,
        ROUTES: {name: each.version for name, each in now.routes.items() if name in listeners},
    }


@pytest.mark.parametrize("seed", range(300))
def test_after_any_interleaving_the_client_holds_what_it_is_to_know(seed: int) -> None:
    world = World(seed)
    world.wander(steps=300)
    world.settle()
    world.repair()
    world.settle()
    assert world.client.held == expected(world)
    assert world.client.warming == set()
    assert world.stream.in_sync(world.snapshot)


@pytest.mark.parametrize("seed", range(100))
def test_what_is_good_arrives_though_other_things_are_rejected(seed: int) -> None:
    world = World(seed)
    world.wander(steps=300)
    world.settle()
    for type_url, mapping in (
        (CLUSTER, world.snapshot.clusters),
        (LISTENER, world.snapshot.listeners),
        (ENDPOINTS, {n: e for n, e in world.snapshot.endpoints.items() if n in world.client.held[CLUSTER]}),
    ):
        good = {name: each.version for name, each in mapping.items() if not each.version.endswith(BAD)}
        assert good.items() <= world.client.held[type_url].items()
