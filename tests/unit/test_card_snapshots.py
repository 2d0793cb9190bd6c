"""Which agents' cards the control plane is asked for, and which agents are asked themselves."""

from __future__ import annotations

from dataclasses import replace

from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.service.discovery.v3.discovery_pb2 import Resource

from weft.controlplane.cards import destinations_with_card
from weft.controlplane.snapshots import Snapshots
from weft.controlplane.translate.routes import ROUTE_CONFIGURATION
from weft.model.agent import Instance, Status
from weft.model.node import Address, Node
from weft.model.offer import Offer

ECHO = Instance("e-1", "echo", "127.0.0.1:1", Status.HEALTHY, frozenset({"say"}))
PLAIN = replace(ECHO, type="plain", capabilities=frozenset({"count"}))
CARD = {"name": "Echo"}
NODE = Node("door", Address("127.0.0.1", 20001))


class Scene:
    """Snapshots, and what a sidecar sees of them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.snapshots = Snapshots([Address("127.0.0.1", 7400)], clock=lambda: self.now)
        self.snapshots.update([ECHO, PLAIN], [])

    def offer(self, *offers: tuple[Instance, Offer]) -> None:
        self.snapshots.update_cards(*destinations_with_card({each.type: [(each, it)] for each, it in offers}))

    def asked_here(self) -> set[str]:
        """The virtual hosts in which the control plane is asked, before anybody else is."""
        resource = self.snapshots.snapshot(NODE).routes[ROUTE_CONFIGURATION]
        configuration = RouteConfiguration()
        Resource.FromString(resource.wire).resource.Unpack(configuration)
        return {
            each.name
            for each in configuration.virtual_hosts
            if [route.name for route in each.routes if route.name in {"card", "default"}][:2] == ["card"] * 2
        }


ECHOS = {"type/echo", "instance/echo", "capability/say"}
PLAINS = {"type/plain", "instance/plain", "capability/count"}


def test_until_it_is_known_the_control_plane_is_asked() -> None:
    scene = Scene()
    assert scene.asked_here() == ECHOS | PLAINS
    scene.offer((PLAIN, Offer()))
    assert scene.asked_here() == ECHOS
    scene.offer((PLAIN, Offer()), (ECHO, Offer(CARD)))
    assert scene.asked_here() == ECHOS


def test_sidecars_hear_of_it_only_where_it_is_news() -> None:
    scene = Scene()
    scene.offer((PLAIN, Offer()))
    generation = scene.snapshots.generation
    scene.offer((PLAIN, Offer()), (ECHO, Offer(CARD)))
    scene.offer((PLAIN, Offer(notes=("x",))))
    scene.offer()
    assert scene.snapshots.generation == generation
    scene.offer((PLAIN, Offer(CARD)))
    assert scene.snapshots.generation > generation
    assert scene.asked_here() == ECHOS | PLAINS


def test_an_agent_without_a_card_is_known_as_that_while_it_restarts_and_no_longer() -> None:
    scene = Scene()
    scene.offer((PLAIN, Offer()))
    scene.snapshots.update([ECHO], [])
    scene.offer()
    assert scene.asked_here() == ECHOS
    scene.now += 3600
    scene.snapshots.update([ECHO], [])
    scene.offer()
    scene.snapshots.update([ECHO, PLAIN], [])
    assert scene.asked_here() == ECHOS | PLAINS
