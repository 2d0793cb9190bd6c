"""The limits of a call tree in Envoy: its deadline, and how many agents it may pass.

Calls that bring no limits pay nothing for them but a look at two headers: each virtual host has routes of its
own before all others, which only calls with `x-weft-deadline`, or with a way that is too long, match. They
turn on a script, which refuses the call, or has Envoy choose a route anew and bounds the call by what is
left. It does so twice. The length of the stream says nothing against an instance that had too little time,
but begins anew with each attempt; so the timeout, which would, ends the call a moment later.
"""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLogFilter
from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.config.route.v3.route_components_pb2 import Route, RouteAction
from envoy.extensions.filters.http.lua.v3.lua_pb2 import Lua
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    ResponseMapper,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2 import HeaderMutation

from weft.controlplane.translate.answers import any_call
from weft.controlplane.translate.http_listener import add_filter, turned_on
from weft.controlplane.translate.lua_scripts import script, table
from weft.controlplane.translate.replies import DESTINATION_HEADER, ERROR_HEADER, header, problem_format
from weft.errors import PROBLEM_MEDIA_TYPE, PROBLEM_TYPE_PREFIX, TimedOut
from weft.model.hops import HOPS_HEADER
from weft.model.llm_wire import DEADLINE_HEADER

TREE_FILTER = "weft.tree"
"""Name of the script's filter, which is off but for calls that bring limits."""

_DURATION_HEADER = "x-envoy-upstream-stream-duration-ms"
_TIMEOUT_HEADER = "x-envoy-upstream-rq-timeout-ms"
"""It replaces the route's, which therefore stands in the route's metadata: the script takes the less."""

_GRACE = 10
"""Milliseconds by which the timeout is longer than a stream may be: less than most pauses before a retry."""

_METADATA = "weft.tree"
_CHECKED, _BOUNDED = "checked", "bounded"
"""What the script notes of a call: that it has read it; that its tree leaves it less time than its route."""

_NO_CLUSTER = "none"
"""No call gets there: each is either refused, or is given another route."""


def add_tree_filter(manager: HttpConnectionManager, max_hops: int) -> None:
    """Add the script to the outbound listener. What names a call's destination comes before it."""
    config = Lua(clear_route_cache={"value": False})
    names = {
        "HOPS_HEADER": HOPS_HEADER,
        "DEADLINE_HEADER": DEADLINE_HEADER,
        "DESTINATION_HEADER": DESTINATION_HEADER,
        "ERROR_HEADER": ERROR_HEADER,
        "DURATION_HEADER": _DURATION_HEADER,
        "TIMEOUT_HEADER": _TIMEOUT_HEADER,
        "METADATA": _METADATA,
        "CHECKED": _CHECKED,
        "BOUNDED": _BOUNDED,
        "PROBLEM": PROBLEM_TYPE_PREFIX,
        "MEDIA_TYPE": PROBLEM_MEDIA_TYPE,
    }
    prelude = f"local wire = {table(names)}\nlocal limits = {table({'hops': max_hops, 'grace': _GRACE})}"
    config.default_source_code.inline_string = script(prelude, "call_tree")
    add_filter(manager, TREE_FILTER, config, disabled=True)


def add_hop(mutation: HeaderMutation, agent_type: str) -> None:
    """Have every call say that it has passed an agent of this type."""
    known = mutation.mutations.add().append
    known.CopyFrom(header(HOPS_HEADER, f"%REQ({HOPS_HEADER})%, {agent_type}"))
    known.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS
    first = mutation.mutations.add().append
    first.CopyFrom(header(HOPS_HEADER, agent_type))
    first.append_action = HeaderValueOption.ADD_IF_ABSENT


def tree_routes(max_hops: int, *, beside: str = "") -> Iterator[Route]:
    """To stand before all other routes of a virtual host.

    Which filters a call passes is settled by these routes, before it has its own: `beside` names a filter
    that some of the others turn on.
    """
    deadline = _unchecked()
    deadline.match.headers.add(name=DEADLINE_HEADER, present_match=True)
    way = _unchecked()
    too_long = way.match.headers.add(name=HOPS_HEADER)
    too_long.string_match.safe_regex.regex = f"([^,]*,){{{max_hops}}}.*"
    for each in (deadline, way):
        if beside:
            each.typed_per_filter_config[beside].Pack(turned_on())
        yield each


def note_timeout(route: Route) -> None:
    """Have the script know the timeout of a route."""
    milliseconds = route.route.timeout.ToMilliseconds()
    if milliseconds:
        route.metadata.filter_metadata[TREE_FILTER].update({"timeout": milliseconds})


def too_late() -> ResponseMapper:
    """What is answered to a call when its tree's deadline passes."""
    condition = AccessLogFilter()
    bounded, late = condition.and_filter.filters.add(), condition.and_filter.filters.add()
    bounded.metadata_filter.matcher.filter = _METADATA
    bounded.metadata_filter.matcher.path.add().key = _BOUNDED
    bounded.metadata_filter.matcher.value.bool_match = True
    bounded.metadata_filter.match_if_key_not_found.value = False
    late.response_flag_filter.flags.extend(["UMSDR", "UT"])
    detail = f"the deadline of the call tree has passed before '%REQ({DESTINATION_HEADER})%' has answered"
    mapper = ResponseMapper(
        filter=condition,
        body_format_override=problem_format(TimedOut, detail),
        headers_to_add=[header(ERROR_HEADER, TimedOut.code)],
    )
    mapper.status_code.value = TimedOut.status
    return mapper


def _unchecked() -> Route:
    route = Route(name="tree", match=any_call(), route=RouteAction(cluster=_NO_CLUSTER))
    checked = route.match.dynamic_metadata.add(filter=_METADATA, invert=True)
    checked.path.add().key = _CHECKED
    checked.value.bool_match = True
    route.typed_per_filter_config[TREE_FILTER].Pack(turned_on())
    return route
