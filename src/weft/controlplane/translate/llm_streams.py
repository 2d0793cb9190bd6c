"""Streamed calls to models where the sidecar has the stream guard (`weft.native`).

The guard is the last filter before the router, and opens such a call's stream to an internal listener, whose
routes are the same. So whatever is decided and counted of a call is in one place, before the guard; behind it
are providers, keys and retries. What the filters there need to know comes in headers.

An answer that breaks off before its first event is asked for once more, with AGAIN_HEADER: it is the turn of
the next provider, about which the scheduler is asked like about any further attempt.
"""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.core.v3.base_pb2 import TrafficDirection
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route, RouteAction, RouteMatch
from envoy.extensions.common.matching.v3.extension_matcher_pb2 import ExtensionWithMatcher
from envoy.extensions.filters.http.dynamic_modules.v3.dynamic_modules_pb2 import DynamicModuleFilter
from envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2 import HeaderMutation
from envoy.extensions.filters.http.lua.v3.lua_pb2 import Lua
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from google.protobuf.wrappers_pb2 import StringValue

from weft.controlplane.translate.http_listener import add_filter, add_manager, connection_manager
from weft.controlplane.translate.llm_asking import by_header
from weft.controlplane.translate.llm_errors import SERVER, error_format, llm_replies
from weft.controlplane.translate.llm_logs import attempt_log
from weft.controlplane.translate.llm_scripts import stream_script
from weft.controlplane.translate.replies import ERROR_HEADER, header
from weft.model.llm_wire import AGAIN_HEADER, BEGUN_HEADER, STREAM_HEADER, STREAMS, order_cluster
from weft.model.model_pool import ModelPool
from weft.native import MODULE

GUARD_FILTER = "weft.llm.guard"

_BROKEN = "stream_broken"
_MOST = 65 * 1024 * 1024
"""Bytes of a request's body: more than any pool can take."""
_MORE_HEADERS = 20
"""Those by which a request grows on its way through the first listener."""
_TOOK = "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)%"


def stream_guard() -> ExtensionWithMatcher:
    """The guard, for calls whose answers are to be streamed."""
    guard = DynamicModuleFilter(filter_name="stream-guard", terminal_filter=True)
    guard.dynamic_module_config.name = MODULE
    guard.filter_config.Pack(StringValue(value=f"{STREAMS} {_MOST}"))
    return by_header(STREAM_HEADER, {"1": guard})


def streams_listener(manager: HttpConnectionManager) -> Listener:
    """What the guard's streams come to; `manager` has the routes of the listener before it."""
    manager.local_reply_config.mappers.extend(llm_replies())
    manager.common_http_protocol_options.max_headers_count.value += _MORE_HEADERS
    script = Lua()
    script.default_source_code.inline_string = stream_script()
    add_filter(manager, "weft.llm.stream", script)
    add_filter(manager, "weft.llm.begun", _begun())
    router = Router(suppress_envoy_headers=True, upstream_log=[attempt_log()])
    add_filter(manager, "envoy.filters.http.router", router)
    listener = Listener(name=STREAMS, traffic_direction=TrafficDirection.OUTBOUND)
    listener.internal_listener.SetInParent()
    listener.ignore_global_conn_limit = True
    listener.filter_chains.add()
    add_manager(listener, manager)
    return listener


def streams_manager() -> HttpConnectionManager:
    """A connection manager for that listener, without routes."""
    return connection_manager(STREAMS)


def again_routes(pool: ModelPool, match: RouteMatch, action: RouteAction) -> Iterator[Route]:
    """Where streamed calls to `pool`, which `match`, go after a provider broke off; otherwise as `action`."""
    for each in pool.providers:
        route = Route(name=f"llm/{pool.name}/again", match=match)
        route.match.headers.add(name=AGAIN_HEADER).string_match.exact = each.name
        others = (other.name for other in pool.providers if other.name != each.name)
        if (following := next(others, None)) is not None:
            route.route.CopyFrom(action)
            route.route.cluster = order_cluster(pool.name, following)
        else:
            _refuse(route, f"provider '{each.name}', which is the only one of pool '{pool.name}',")
        yield route


def _refuse(route: Route, who: str) -> None:
    route.direct_response.status = 502
    detail = f"{who} broke off before its answer began; try again"
    route.direct_response.body_format.CopyFrom(error_format(detail, SERVER, _BROKEN))
    route.response_headers_to_add.append(header(ERROR_HEADER, _BROKEN))


def _begun() -> HeaderMutation:
    mutation = HeaderMutation()
    mutation.mutations.response_mutations.add().append.CopyFrom(header(BEGUN_HEADER, _TOOK))
    return mutation
