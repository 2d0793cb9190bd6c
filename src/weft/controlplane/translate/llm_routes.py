"""The virtual hosts of models: `llm.mesh`, and the same at the listener's own address."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.config.route.v3.route_components_pb2 import (
    HeaderMatcher,
    Route,
    RouteAction,
    RouteMatch,
    VirtualHost,
)
from google.protobuf.message import Message

from weft.controlplane.translate.answers import any_call
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.llm_errors import INVALID, error_format
from weft.controlplane.translate.llm_filters import llm_filters_on
from weft.controlplane.translate.llm_pools import Models, largest_body, weighted_orders
from weft.controlplane.translate.llm_streams import again_routes
from weft.controlplane.translate.replies import ERROR_HEADER, REFUSED_HEADER, header
from weft.controlplane.translate.telemetry import name_route
from weft.model.llm_wire import (
    CALL_HEADER,
    CLUSTER_HEADER,
    LLM_HOST,
    METADATA,
    POOL_HEADER,
    PROVIDER_HEADER,
    STREAM_HEADER,
)
from weft.model.model_pool import ANY_MODEL, ModelPool
from weft.model.names import LOCALHOST_DOMAIN, MESH_DOMAIN

MAX_LISTED_BYTES = 1024 * 1024
"""Size of the list of models."""

_EDITED_BYTES = 1024
"""By which a body may grow when it is edited, at most."""

_NO_CLUSTER = "llm"

_RETRIED = "5xx,connect-failure,refused-stream,reset,retriable-status-codes"
_TOO_MANY_REQUESTS = 429
_PAUSE = 0.01
"""Seconds between two attempts, on average half of it; they are for different providers."""


def llm_host(models: Models) -> VirtualHost:
    """`llm.mesh`, as a caller who has these `models` sees it."""
    domains = [LLM_HOST, f"{LLM_HOST}.{MESH_DOMAIN}", f"{LLM_HOST}.{LOCALHOST_DOMAIN}"]
    host = VirtualHost(name=LLM_HOST, domains=domains, include_request_attempt_count=True)
    turn_on(host.typed_per_filter_config, models)
    host.response_headers_to_add.extend(_told_to_clients())
    host.response_headers_to_remove.extend([REFUSED_HEADER])
    # Every call comes by it: Envoy goes through the routes one by one.
    host.routes.append(_unread(models))
    host.routes.extend(_listing(models))
    for pool in models.pools:
        host.routes.extend(_again(pool))
        for streamed in (True, False):
            host.routes.append(_asked(pool, streamed=streamed))
            host.routes.append(_leased(pool, streamed=streamed))
    host.routes.append(_unknown_path())
    return host


def turn_on(config: Any, models: Models) -> None:
    """Have a virtual host or a route turn on the filters for models, in its `config` of filters."""
    each: Message
    for name, each in llm_filters_on(models).items():
        config[name].Pack(each)


def _told_to_clients() -> list[HeaderValueOption]:
    return [
        header(PROVIDER_HEADER, f"%UPSTREAM_METADATA({METADATA}:provider)%"),
        header(CALL_HEADER, f"%DYNAMIC_METADATA({METADATA}:call)%"),
    ]


def _listing(models: Models) -> Iterable[Route]:
    listed = [_model(name) for pool in models.pools for name in pool.models if name != ANY_MODEL]
    yield _json("models", "/v1/models", {"object": "list", "data": listed})
    for each in listed:
        name = str(each["id"])
        for path in dict.fromkeys((name, quote(name, safe=":@+"), quote(name, safe=""))):
            yield _json("model", f"/v1/models/{path}", each)


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "weft"}


def _json(name: str, path: str, body: object) -> Route:
    route = Route(name=name, match=RouteMatch(path=path, headers=[_exact(":method", "GET")]))
    route.direct_response.status = 200
    route.direct_response.body.inline_string = json.dumps(body)
    route.response_headers_to_add.append(header("content-type", "application/json"))
    return route


def _again(pool: ModelPool) -> Iterable[Route]:
    """A streamed call whose provider broke off before its first event goes to the next."""
    match, action = _of(pool, streamed=True), _action(pool, streamed=True)
    return (_large(each, pool) for each in again_routes(pool, match, action))


def _asked(pool: ModelPool, *, streamed: bool) -> Route:
    """A call that the scheduler has admitted goes where it says."""
    match = _of(pool, streamed=streamed)
    match.headers.add(name=CLUSTER_HEADER, present_match=True)
    action = _action(pool, streamed=streamed)
    action.cluster_header = CLUSTER_HEADER
    return _large(Route(name=f"llm/{pool.name}/asked", match=match, route=action), pool)


def _leased(pool: ModelPool, *, streamed: bool) -> Route:
    action = _action(pool, streamed=streamed)
    orders = weighted_orders(pool)
    if len(orders) == 1:
        action.cluster = orders[0][0]
    else:
        for cluster, weight in orders:
            action.weighted_clusters.clusters.add(name=cluster).weight.value = weight
    match = _of(pool, streamed=streamed)
    return _large(Route(name=f"llm/{pool.name}/leased", match=match, route=action), pool)


def _large(route: Route, pool: ModelPool) -> Route:
    """`route` to `pool`, with bodies kept for another attempt, however large they are."""
    name_route(route, pool.name)
    route.request_body_buffer_limit.value = pool.spec.max_body_bytes + _EDITED_BYTES
    return route


def _of(pool: ModelPool, *, streamed: bool) -> RouteMatch:
    return any_call(_exact(POOL_HEADER, pool.name), _exact(STREAM_HEADER, "1" if streamed else "0"))


def _exact(name: str, value: str) -> HeaderMatcher:
    matcher = HeaderMatcher(name=name)
    matcher.string_match.exact = value
    return matcher


def _action(pool: ModelPool, *, streamed: bool) -> RouteAction:
    """Limits of time are for each attempt, the most that any of the providers has: Envoy has one for all."""
    # The host is the provider's, of each attempt: it stands with its endpoint.
    action = RouteAction(timeout=duration(0), auto_host_rewrite={"value": True})
    if len(pool.providers) == 1 and not streamed:
        # Without another attempt to be ready for, Envoy keeps no copy of the body.
        action.timeout.CopyFrom(duration(pool.providers[0].timeout))
        return action
    retries = action.retry_policy
    retries.retry_on = _RETRIED
    retries.retriable_status_codes.append(_TOO_MANY_REQUESTS)
    retries.num_retries.value = len(pool.providers) - 1
    retries.retry_back_off.base_interval.CopyFrom(duration(_PAUSE))
    if streamed:
        silence = max(each.first_token for each in pool.providers)
        retries.per_try_idle_timeout.CopyFrom(duration(silence))
    else:
        limits = [each.timeout for each in pool.providers]
        retries.per_try_timeout.CopyFrom(duration(max(limits)))
        # An attempt whose answer has begun is bounded by this alone.
        action.timeout.CopyFrom(duration(sum(limits)))
    return action


def _unread(models: Models) -> Route:
    """A call of which the script has not read yet what it is. It lets so much of a body in.

    Envoy takes that limit only from a route that leads to a cluster. To this one no call gets, since none
    passes the script without having been read.
    """
    match = any_call(_exact(":method", "POST"))
    match.headers.add(name=POOL_HEADER, present_match=True, invert_match=True)
    route = Route(name="llm/unread", match=match, route=RouteAction(cluster=_NO_CLUSTER))
    route.request_body_buffer_limit.value = largest_body(models.pools)
    return route


def _unknown_path() -> Route:
    """What is called at the models' address, and is none of their paths."""
    detail = (
        "there is no '%REQ(:METHOD)% %REQ(:PATH):200%' here: POST /v1/chat/completions, /v1/completions, "
        "/v1/responses or /v1/embeddings, and GET /v1/models (or /v1/models/MODEL) for the models there are"
    )
    route = Route(
        name="llm/unknown", match=any_call(), response_headers_to_add=[header(ERROR_HEADER, "not_found")]
    )
    route.direct_response.status = 404
    route.direct_response.body_format.CopyFrom(error_format(detail, INVALID, "not_found"))
    return route
