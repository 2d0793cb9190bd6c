"""Routes by which whoever asks an agent for its A2A card gets one that leads into the mesh.

The agent's own would tell of addresses at which nobody else reaches it. So the control plane answers, which
has read it.
"""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.route.v3.route_components_pb2 import Route, RouteAction, RouteMatch

from weft.controlplane.translate.clusters import CONTROL_CLUSTER
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.replies import header
from weft.model.agent_card import CARD_OF_HEADER, CARD_PATH, FORMER_CARD_PATH, MESH_CARD_PATH

CARD_TIMEOUT = 10.0
"""Seconds in which the control plane must answer."""


def card_routes(whose: str) -> Iterator[Route]:
    """Before all others of a virtual host; `whose` card it is, as CARD_OF_HEADER has it."""
    for path in (CARD_PATH, FORMER_CARD_PATH):
        match = RouteMatch(path=path)
        match.headers.add(name=":method").string_match.safe_regex.regex = "GET|HEAD"
        action = RouteAction(cluster=CONTROL_CLUSTER, timeout=duration(CARD_TIMEOUT))
        # Another replica may be there.
        action.retry_policy.retry_on = "connect-failure,refused-stream,reset-before-request"
        action.regex_rewrite.pattern.regex = "^.*$"
        action.regex_rewrite.substitution = MESH_CARD_PATH
        # The host stays as it is: the card's URLs are made of it.
        yield Route(
            name="card", match=match, route=action, request_headers_to_add=[header(CARD_OF_HEADER, whose)]
        )
