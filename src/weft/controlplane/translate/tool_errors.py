"""What Envoy itself answers to requests to `tools.mesh` that it cannot carry out."""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLogFilter, MetadataFilter
from envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from envoy.extensions.access_loggers.filters.cel.v3.cel_pb2 import ExpressionFilter
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    ResponseMapper,
)

from weft.controlplane.translate.replies import ERROR_HEADER, REFUSED_HEADER, header, problem_format
from weft.controlplane.translate.tool_scripts import METADATA
from weft.errors import Unavailable
from weft.model.mcp_wire import SESSION_LOST

_INVALID_REQUEST = -32600
_INTERNAL = -32603


def tool_replies() -> Iterator[ResponseMapper]:
    """For the listener through which agents call; they come before those for other calls."""
    yield _mapper(
        "request_payload_too_large",
        413,
        "null",
        _INVALID_REQUEST,
        "the request is larger than any tool of the mesh takes",
    )
    # Clients of before 2026 end their session at most other statuses.
    yield _mapper(
        "response_payload_too_large",
        200,
        f"%DYNAMIC_METADATA({METADATA}:call:id)%",
        _INTERNAL,
        f"the answer of '%DYNAMIC_METADATA({METADATA}:call:shown)%' is larger than any tool's may be",
    )


def session_reply() -> ResponseMapper:
    """For the listener to which others' sidecars send calls: nobody knows of a session for one of a tool.

    So the server has done nothing yet, and another may be tried. What the service says itself, with a status
    of 500 or more, comes to this, too.
    """
    detail = "there is no session to be had with the MCP server; the log of its sidecar says why"
    mapper = ResponseMapper(
        filter=AccessLogFilter(),
        body_format_override=problem_format(Unavailable, detail),
        headers_to_add=[header(ERROR_HEADER, Unavailable.code), header(REFUSED_HEADER, SESSION_LOST)],
    )
    _because(mapper.filter, "ext_authz_error")
    return mapper


def _mapper(details: str, status: int, request_id: str, code: int, message: str) -> ResponseMapper:
    body = SubstitutionFormatString(content_type="application/json")
    error = f'{{"code":{code},"message":"{message}"}}'
    body.text_format_source.inline_string = f'{{"jsonrpc":"2.0","id":{request_id},"error":{error}}}'
    mapper = ResponseMapper(filter=_when(details), body_format_override=body)
    mapper.status_code.value = status
    return mapper


def _when(details: str) -> AccessLogFilter:
    condition = AccessLogFilter()
    posted, because = condition.and_filter.filters.add(), condition.and_filter.filters.add()
    posted.metadata_filter.CopyFrom(MetadataFilter())
    posted.metadata_filter.matcher.filter = METADATA
    posted.metadata_filter.matcher.path.add().key = "posted"
    posted.metadata_filter.matcher.value.present_match = True
    posted.metadata_filter.match_if_key_not_found.value = False
    _because(because, details)
    return condition


def _because(condition: AccessLogFilter, details: str) -> None:
    condition.extension_filter.name = "envoy.access_loggers.extension_filters.cel"
    expression = f"response.code_details.startsWith('{details}')"
    condition.extension_filter.typed_config.Pack(ExpressionFilter(expression=expression))
