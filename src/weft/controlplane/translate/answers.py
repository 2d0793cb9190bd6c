"""Routes that answer a call themselves, with an error."""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import HeaderMatcher, Route, RouteMatch

from weft.controlplane.translate.replies import DESTINATION_HEADER, ERROR_HEADER, header, problem_format
from weft.errors import MeshError, NoSuchAgent


def answer(name: str, match: RouteMatch, error: type[MeshError], detail: str) -> Route:
    """Answer what matches with `error`. `detail` may hold Envoy's command operators."""
    route = Route(name=name, match=match, response_headers_to_add=[header(ERROR_HEADER, error.code)])
    route.direct_response.status = error.status
    route.direct_response.body_format.CopyFrom(problem_format(error, detail, status=error.status))
    return route


def no_such_agent(match: RouteMatch) -> Route:
    """Answer what matches with: the mesh knows no such agent."""
    detail = (
        f"the mesh knows no agent type, capability or instance at '%REQ({DESTINATION_HEADER})%'; "
        "see what it knows with 'weft agents'"
    )
    return answer("unknown", match, NoSuchAgent, detail)


def any_call(*headers: HeaderMatcher) -> RouteMatch:
    """Every call with these headers, but for CONNECT, which has no path."""
    return RouteMatch(prefix="/", headers=headers)


def any_tunnel(*headers: HeaderMatcher) -> RouteMatch:
    """Every CONNECT with these headers."""
    return RouteMatch(connect_matcher=RouteMatch.ConnectMatcher(), headers=headers)
